"""`cache.save()`: every tensor under the name of its place, whatever it lies in."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import nntap
from helpers import IDS, Give, Model
from strategies import Frozen, Output, Pair, Slotted


@pytest.fixture
def model() -> Model:
    return Model().eval()


def recorded(value: Any) -> nntap.Cache:
    model = Give(lambda: value)
    with nntap.capture(model) as cache:
        model()
    return cache


def test_a_safetensors_file_has_each_record_under_its_place(model: Model, tmp_path: Path) -> None:
    with nntap.capture(model, include_inputs=True) as cache:
        model(IDS)
        model(IDS)
    file = tmp_path / "cache.safetensors"
    assert cache.save(file) is None
    read = load_file(file)
    assert torch.equal(read["embed[1].output"], cache["embed"][1].output)
    assert torch.equal(read["heads.a[0].inputs.0.0"], cache["heads.a"][0].input)
    assert torch.equal(read["[0].output.b"], cache[""][0].output["b"])
    tensors = sum(tensor.nbytes for tensor in read.values())
    assert tensors <= file.stat().st_size < tensors + 200 * len(read) + 2000
    with safe_open(file, "pt") as opened:
        others = json.loads(opened.metadata()["nntap.others"])
    assert others["layers.0[0].inputs.1.scale"] == "0.5"


def test_without_a_path_save_gives_back_the_cache_as_nnsight_does(model: Model) -> None:
    with nntap.capture(model) as cache:
        model(IDS)
    assert cache.save() is cache


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.eye(3).to_sparse(), "'output' is of layout torch.sparse_coo"),
        (torch.ones(2, dtype=torch.complex128), "'output' is of torch.complex128"),
        (torch.ones(2, device="meta"), "'output' has no memory"),
    ],
    ids=["sparse", "complex128", "meta"],
)
def test_a_tensor_that_the_file_cannot_hold_is_named_before_anything_is_written(
    value: torch.Tensor, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "cache.safetensors"
    with pytest.raises(ValueError, match=f"{says}.*select other modules, or save cache.to_dict"):
        recorded(value).save(file)
    assert not file.exists()


def test_a_safetensors_file_takes_shared_and_transposed_records(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    x = torch.randn(3, 4).t()
    with nntap.capture(model) as cache:
        model(x)
    cache.save(tmp_path / "cache.safetensors")
    read = load_file(tmp_path / "cache.safetensors")
    assert sorted(read) == ["0.output", "1.output", "output"]
    assert all(torch.equal(tensor, x) for tensor in read.values())


# ---- containers ----

ONE, TWO = torch.ones(1), torch.full((2,), 2.0)
EXTRA = Output(first=ONE)
vars(EXTRA)["extra"] = (TWO,)

NESTS: dict[str, tuple[Any, list[str]]] = {
    "a tensor": (ONE, ["output"]),
    "a tuple": ((ONE, TWO), ["output.0", "output.1"]),
    "a list": ([ONE, [TWO]], ["output.0", "output.1.0"]),
    "a dict": ({"a": ONE, 3: {"b": TWO}}, ["output.3.b", "output.a"]),
    "an OrderedDict": (OrderedDict(a=ONE), ["output.a"]),
    "a namedtuple": (Pair(ONE, TWO), ["output.0", "output.1"]),
    "torch's own namedtuple": (torch.return_types.max([ONE, TWO]), ["output.0", "output.1"]),
    "a set": ({ONE, TWO}, ["output.0", "output.1"]),
    "a frozenset": (frozenset({ONE}), ["output.0"]),
    "a slice": (slice(ONE, None, TWO), ["output.start", "output.step"]),
    "a dataclass": (Frozen(ONE, Slotted(TWO, [ONE])), ["output.other.others.0", "output.other.value", "output.value"]),
    "a ModelOutput": (Output(first=ONE, second=(TWO,)), ["output.first", "output.second.0"]),
    "an attribute of a ModelOutput": (EXTRA, ["output.extra.0", "output.first"]),
}


@pytest.mark.parametrize("kind", NESTS)
def test_each_tensor_is_written_that_lies_in(kind: str, tmp_path: Path) -> None:
    value, names = NESTS[kind]
    cache = recorded(value)
    cache.save(tmp_path / "cache.safetensors")
    read = load_file(tmp_path / "cache.safetensors")
    assert sorted(read) == names
    assert len(read) == cache.stats.records


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({0: ONE, "0": TWO}, "'output.0' in the file: output[0] of '' and output['0'] of ''"),
        ({"a.b": ONE, "a": {"b": TWO}}, "'output.a.b' in the file: output['a.b'] of '' and output['a']['b'] of ''"),
        ({0: "text", "0": ONE}, "'output.0' in the file"),
    ],
    ids=["a number and a text", "a dot in a key", "a text and a tensor"],
)
def test_two_values_of_one_name_are_refused_before_anything_is_written(value: Any, says: str, tmp_path: Path) -> None:
    file = tmp_path / "cache.safetensors"
    with pytest.raises(ValueError) as caught:
        recorded(value).save(file)
    assert says in str(caught.value)
    assert not file.exists()


def test_a_module_s_path_and_a_key_may_not_make_one_name(tmp_path: Path) -> None:
    model = Give(lambda: {"output": model.output()})
    model.output = Give(lambda: ONE)
    with nntap.capture(model) as cache:
        model()
    with pytest.raises(ValueError, match=r"'output\.output'.*: output of 'output' and output\['output'\] of ''"):
        cache.save(tmp_path / "cache.safetensors")
