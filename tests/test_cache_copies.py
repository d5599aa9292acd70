"""Caches as values: pickled and copied."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Model


@pytest.fixture
def model() -> Model:
    return Model().eval()


def same_records(one: nntap.Cache, other: nntap.Cache) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(a, b)
        for key in one
        for x, y in zip(one[key], other[key], strict=True)
        for a, b in ((x.output, y.output), (x.input, y.input))
        if isinstance(a, torch.Tensor)
    )


def pickled(cache: Any) -> Any:
    return pickle.loads(pickle.dumps(cache))


def saved(cache: Any) -> Any:
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": pickled,
    "torch.save": saved,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
def test_a_cache_can_be_copied_with(way: str, model: Model) -> None:
    with nntap.capture(model, include_inputs=True) as cache:
        model(IDS)
        model(IDS)
    other = COPIES[way](cache)
    assert type(other) is nntap.Cache
    assert same_records(cache, other)
    assert other.stats == cache.stats
    assert other.layers[-1].mlp[0].output[1].shape == (1, 3, 8)
    assert torch.equal(other.model.embed[0].output, cache["embed"][0].output)
    with pytest.raises(nntap.UnknownModuleError, match=r"layers\.0"):
        other["layers.9"]
    assert same_records(COPIES[way](other), cache)


@pytest.mark.parametrize("way", COPIES)
def test_views_and_entries_can_be_copied_with(way: str, model: Model) -> None:
    with nntap.capture(model, include_inputs=True) as cache:
        model(IDS)
    view, entry = COPIES[way](cache["layers.0"]), COPIES[way](cache["layers.0"][0])
    for other in (view, entry):
        assert torch.equal(other.output, cache["layers.0"].output)
        assert torch.equal(other.input, cache["layers.0"].input)


@pytest.mark.parametrize("way", ["pickle", "torch.save", "copy.deepcopy"])
def test_a_copy_of_shared_records_shares_them_too(way: str) -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    with nntap.capture(model) as cache:
        model(torch.ones(3))
    other = COPIES[way](cache)
    assert other["0"].output is other["1"].output is other[""].output
    assert other["0"].output is not cache["0"].output


def test_what_is_saved_is_no_larger_than_the_records() -> None:
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    with nntap.capture(model) as cache:
        model(torch.randn(1000, 10))
    assert len(pickle.dumps(cache)) < 2 * 40_000 + 4000
    assert cache.stats.bytes_moved == 80_000


@pytest.mark.parametrize("way", ["torch.save", "pickle"])
def test_what_is_written_of_one_record_is_its_bytes_alone(way: str) -> None:
    model = nn.Sequential(*(nn.Linear(100, 100) for _ in range(5)))
    with nntap.capture(model) as cache:
        model(torch.randn(1, 100))
    tensor = cache["2"].output
    file = io.BytesIO()
    torch.save(tensor, file) if way == "torch.save" else pickle.dump(tensor, file)
    assert tensor.nbytes < file.tell() < tensor.nbytes + 2500


def test_a_copy_made_while_recording_does_not_grow(model: Model) -> None:
    with nntap.capture(model) as cache:
        model(IDS)
        other = copy.copy(cache)
        model(IDS)
    assert (len(other["embed"]), len(cache["embed"])) == (1, 2)
