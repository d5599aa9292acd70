"""Reading a cache: how it looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nntap
from helpers import Give


def given(value: Any, **options: Any) -> nntap.Cache:
    """The cache of a module that gives back the value."""
    model = Give(lambda: value)
    with nntap.capture(model, **options) as cache:
        model()
    return cache


# ---- looks ----


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_cannot_be_shown_is_shown_by_its_type() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    cache = given({"nested": nested, "other": [Unshowable()], "plain": torch.ones(2)})
    assert "{nested: Tensor, other: [Unshowable], plain: float32 [2]}" in repr(cache)
    assert "nested: Tensor" in repr(cache[""])
    assert "nested: Tensor" in repr(cache[""][0])


def test_the_size_is_in_bytes_where_they_are_known() -> None:
    assert repr(given(torch.ones(3))).startswith("Cache: 1 modules, 12 B recorded\n")
    in_graph = given([torch.ones(3), torch.ones(2)], detach=False)
    assert repr(in_graph).startswith("Cache: 1 modules, 2 tensors recorded\n")
    assert repr(given(torch.ones(3).to_sparse())).startswith("Cache: 1 modules, 1 tensors recorded\n")


def test_an_output_that_is_none_is_told_from_none_recorded() -> None:
    cache = given(None)
    assert cache.to_dict() == {"": {"output": None}}
    assert repr(cache[""]) == "CacheView('', output=None)"
    assert repr(cache[""][0]) == "Entry(output=None)"
    assert given(None, include_output=False, include_inputs=True).to_dict() == {"": {"inputs": ((), {})}}
