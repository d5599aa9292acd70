"""Hooks of the user's beside a capture: a record is what the module gave back after all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import nntap
from helpers import hooks_of


def add_one(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output + 1


def test_a_hook_added_before_the_capture_counts() -> None:
    model = nn.Sequential(nn.Identity())
    model[0].register_forward_hook(add_one)
    with nntap.capture(model) as cache:
        model(torch.zeros(2))
    assert cache["0"].output.tolist() == [1, 1]


def test_hooks_added_inside_the_block_count() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    with nntap.capture(model, include_inputs=True) as cache:
        model[0].register_forward_hook(add_one)
        model[1].register_forward_pre_hook(lambda module, args: (args[0] * 10,))
        model(torch.zeros(2))
    assert cache["0"].output.tolist() == [1, 1]
    assert cache["1"].input.tolist() == [10, 10]
    assert cache[""].output.tolist() == [10, 10]


def test_a_hook_that_edits_in_place_inside_the_block_is_seen() -> None:
    model = nn.Sequential(nn.Identity())
    with nntap.capture(model) as cache:
        model[0].register_forward_hook(lambda module, args, output: output.mul_(0))
        model(torch.ones(2))
    assert cache["0"].output.tolist() == [0, 0]


def test_hooks_removed_inside_the_block_stay_removed() -> None:
    model = nn.Sequential(nn.Identity())
    with nntap.capture(model) as cache:
        handle = model[0].register_forward_hook(add_one)
        model(torch.zeros(1))
        handle.remove()
        model(torch.zeros(1))
    assert [output.item() for output in cache["0"].output] == [1, 0]
    assert hooks_of(model) == []
