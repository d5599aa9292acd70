"""Reading a cache: keys, indices, and how it looks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nntap
from helpers import IDS, Give, Model


@pytest.fixture
def cache() -> nntap.Cache:
    """Of every module of a model that ran twice."""
    model = Model().eval()
    with nntap.capture(model) as cache:
        model(IDS)
        model(IDS)
    return cache


def given(value: Any, **options: Any) -> nntap.Cache:
    """The cache of a module that gives back the value."""
    model = Give(lambda: value)
    with nntap.capture(model, **options) as cache:
        model()
    return cache


# ---- keys ----


@pytest.mark.parametrize("key", ["layers.0.mlp", "model.layers.0.mlp", "heads.a"])
def test_a_dotted_key_may_start_at_the_root_anywhere(key: str, cache: nntap.Cache) -> None:
    for view in (cache, cache.layers, cache.layers[0]):
        assert key in view
        assert view[key].path == key.removeprefix("model.")
        assert view.get(key) is not None


def test_a_dotted_key_starts_at_its_view_where_that_leads_somewhere(cache: nntap.Cache) -> None:
    assert cache.layers["0.mlp"].path == "layers.0.mlp"
    assert "0.mlp" in cache.layers
    assert "0.mlp" not in cache


def test_a_key_of_one_name_stays_below_its_view(cache: nntap.Cache) -> None:
    assert "embed" not in cache.layers
    with pytest.raises(nntap.UnknownModuleError, match=r"layers\.embed|'embed'"):
        cache.layers["embed"]
    with pytest.raises(nntap.UnknownModuleError, match=r"'layers\.9'"):
        cache.layers["layers.9"]


# ---- indices ----


def test_an_index_may_be_of_any_whole_kind(cache: nntap.Cache) -> None:
    assert cache.layers[torch.tensor(1)].path == "layers.1"
    assert cache["layers.1"][torch.tensor(1)].output is cache["layers.1"].output[1]


def test_a_slice_is_of_a_module_s_visits(cache: nntap.Cache) -> None:
    assert all(entry.output is output for entry, output in zip(cache.embed[:], cache.embed.output, strict=True))
    assert len(cache.embed[:1]) == 1
    with pytest.raises(TypeError, match=r"'layers' was not recorded itself, and a slice is of .* visits"):
        cache.layers[:2]


@pytest.mark.parametrize("key", [1.0, None, ("a", 1)])
def test_what_is_no_index_is_refused(key: Any, cache: nntap.Cache) -> None:
    for view in (cache.layers, cache.embed):
        with pytest.raises(TypeError, match="is no index: give a whole number"):
            view[key]


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
