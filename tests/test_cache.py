"""A cache as a mapping: its keys, what they give, and that it is read-only. The tree they walk: `nntap.tree`."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Give, Model


@pytest.fixture(scope="module")
def cache() -> nntap.Cache:
    """Of some modules, with their inputs: the order is that in which they were called."""
    model = Model(blocks=2).eval()
    with nntap.capture(model, ["embed", "layers.*", "layers.*.mlp"], include_inputs=True) as made:
        model(IDS)
    return made


def recorded(model: nn.Module, *args: Any, times: int = 1, **options: Any) -> nntap.Cache:
    with nntap.capture(model, **options) as made:
        for _ in range(times):
            model(*args)
    return made


KEYS = ["embed", "layers.0", "layers.0.mlp", "layers.1", "layers.1.mlp"]


# ---- a mapping ----


def test_it_is_a_mapping_in_the_order_of_the_run(cache: nntap.Cache) -> None:
    assert cache.keys() == list(cache) == KEYS
    assert [view.path for view in cache.values()] == KEYS
    assert [(key, view.path) for key, view in cache.items()] == list(zip(KEYS, KEYS, strict=True))
    assert len(cache) == 5


def test_a_place_is_a_mapping_over_what_lies_below_it(cache: nntap.Cache) -> None:
    assert cache.layers.keys() == KEYS[1:]
    assert len(cache.layers) == len(cache.layers.values()) == 4
    assert cache["layers.0"].keys() == ["layers.0", "layers.0.mlp"]
    assert "layers.0.mlp" in cache.layers
    assert "embed" not in cache.layers


def test_a_module_seen_once_has_one_step(cache: nntap.Cache) -> None:
    assert len(cache["layers.0"]) == 1
    assert [step.output for step in cache["layers.0"]] == [cache["layers.0"].output]


@pytest.mark.parametrize("key", ["embed", "model.embed"])
def test_get_gives_what_is_there(cache: nntap.Cache, key: str) -> None:
    assert key in cache
    assert cache.get(key).output is cache["embed"].output


@pytest.mark.parametrize("key", ["heads.a", "nowhere", "layers", 3, None])
def test_get_gives_the_default_for_what_is_not(cache: nntap.Cache, key: Any) -> None:
    default = object()
    assert key not in cache
    assert cache.get(key) is None
    assert cache.get(key, default) is default


def test_a_cache_is_true_once_something_is_recorded(cache: nntap.Cache) -> None:
    model = nn.Identity()
    with nntap.capture(model) as growing:
        assert not growing
        model(torch.ones(1))
        assert growing
    assert cache.layers
    assert not cache.heads


# ---- walking ----


def test_dir_names_what_lies_below(cache: nntap.Cache) -> None:
    assert {"embed", "layers", "heads", "keys", "stats"} <= set(dir(cache))
    assert {"attention", "mlp", "output", "inputs"} <= set(dir(cache.layers[0]))
    assert "embed" not in dir(cache.layers[0])


def test_attributes_indices_and_paths_reach_the_same_record(cache: nntap.Cache) -> None:
    record = cache["layers.1.mlp"].output
    assert cache.layers[1].mlp.output is record
    assert cache.layers[-1].mlp.output is record
    assert cache.model.layers[1].mlp.output is record
    assert cache["layers"][1]["mlp"].output is record


def test_a_wrong_name_path_or_index_is_named_with_what_is_close(cache: nntap.Cache) -> None:
    with pytest.raises(AttributeError, match=r"'layer'.*'layers'"):
        _ = cache.layer
    with pytest.raises(AttributeError, match=r"'embed\.shape'.*; what the module gave back is its \.output"):
        _ = cache.embed.shape
    with pytest.raises(nntap.UnknownModuleError, match=r"'layers\.0\.mpl'.*'layers\.0\.mlp'"):
        cache["layers.0.mpl"]
    with pytest.raises(IndexError, match="'layers' has no module 2; it has 2"):
        cache.layers[2]
    with pytest.raises(IndexError, match="'embed' has no visit 5; it was called"):
        cache["embed"][5]
    with pytest.raises(TypeError, match="a Model is no module path: give a string such as 'embed'"):
        cache[Model()]
    with pytest.raises(TypeError, match="3 is no module path: give a string such as 'embed'"):
        cache[3]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("heads.a", "'heads.a' was not recorded; the cache has 5 modules"),
        ("layers", "'layers' was not recorded itself, but 4 modules below it were"),
    ],
)
def test_what_was_not_recorded_says_so_when_it_is_read(cache: nntap.Cache, path: str, says: str) -> None:
    with pytest.raises(nntap.UnknownModuleError) as caught:
        _ = cache[path].output
    assert says in str(caught.value)


def test_a_selected_module_that_never_ran_says_so() -> None:
    model = Give(lambda: 1)
    model.unused = nn.Identity()
    with pytest.raises(nntap.UnknownModuleError, match="'unused' was selected, but the model never called it"):
        _ = recorded(model)["unused"].output


def test_a_cache_is_read_only(cache: nntap.Cache) -> None:
    for place in (cache, cache.layers, cache["embed"]):
        with pytest.raises(AttributeError, match="'output' cannot be set: a cache is read-only"):
            place.output = torch.ones(1)
    assert cache["embed"].output.shape == (1, 3, 4)


# ---- to_dict ----


def test_to_dict_gives_plain_python_with_the_same_tensors(cache: nntap.Cache) -> None:
    plain = cache.to_dict()
    assert type(plain) is dict
    assert list(plain) == KEYS
    for path, values in plain.items():
        assert list(values) == ["output", "inputs"]
        assert values["output"] is cache[path].output
        assert values["inputs"] is cache[path].inputs


def test_to_dict_has_a_list_for_a_module_seen_several_times() -> None:
    made = recorded(nn.Identity(), torch.ones(1), times=3)
    assert made.to_dict() == {"": [{"output": output} for output in made[""].output]}
    assert len(made.to_dict()[""]) == 3


@pytest.mark.parametrize(("include_output", "name"), [(True, "output"), (False, "inputs")])
def test_to_dict_leaves_out_what_is_not_recorded(include_output: bool, name: str) -> None:
    options = {"include_output": include_output, "include_inputs": not include_output}
    made = recorded(nn.Identity(), torch.ones(1), **options)
    assert list(made.to_dict()[""]) == [name]


# ---- stats ----


def test_small_copies_are_not_timed() -> None:
    stats = recorded(nn.Identity(), torch.ones(4095)).stats
    assert (stats.records, stats.copy_seconds, stats.gb_per_s) == (1, 0, None)


def test_the_rate_is_the_bytes_of_timed_copies_by_their_time() -> None:
    small, large = torch.ones(16), torch.ones(100_000)
    start = time.perf_counter()
    stats = recorded(Give(lambda: (small, large))).stats
    assert stats.bytes_moved == 400_064
    assert 0 < stats.copy_seconds < time.perf_counter() - start
    assert stats.gb_per_s == pytest.approx(400_000 / stats.copy_seconds / 1e9)
