"""Each row of the README's table of differences: what nntap does, and what nnsight 0.8 does by itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nnsight
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

import nntap

ROWS: dict[str, str] = {}
NEWEST = nnsight.__version__.startswith("0.8.")
X = torch.ones(2, 4)


def row(what: str) -> Callable[[Any], Any]:
    """Marks the test of the row that begins with these words."""

    def mark(test: Any) -> Any:
        ROWS[what] = test.__name__
        return test

    return mark


@contextmanager
def nnsights_own() -> Iterator[None]:
    nntap.uninstall()
    try:
        yield
    finally:
        nntap.install()


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.split("## How it differs")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    assert sorted(rows) == sorted(ROWS)


def wrap(forward: Callable[[torch.Tensor], Any]) -> Any:
    """nnsight around a model whose module `inner` gives back what `forward` makes of its input."""

    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return forward(x)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x)

    return nnsight.NNsight(Model())


def recorded(model: Any, x: torch.Tensor = X, **options: Any) -> Any:
    """The cache of one trace."""
    with model.trace(x) as tracer:
        cache = tracer.cache(**options)
    return cache


@row("A record on the CPU, or with `device=None`")
def test_snapshots() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x + 1).mul_(0)

    model = nnsight.NNsight(Overwrites())
    for device in ("cpu", None):
        assert (recorded(model, device=device)["model.inner"].output == 2).all()
        with nnsights_own():
            own = recorded(model, device=None if device is None else torch.device(device))
            assert (own["model.inner"].output == 0).all()


@row("A tensor that several modules hand on unchanged")
def test_one_object() -> None:
    model = wrap(lambda x: x + 1)
    cache = recorded(model)
    assert cache["model"].output is cache["model.inner"].output
    with nnsights_own():
        own = recorded(model)
        assert own["model"].output is not own["model.inner"].output
        assert own["model"].output.data_ptr() == own["model.inner"].output.data_ptr()


@row("`detach=False`")
def test_a_clone_in_the_graph() -> None:
    weight = nn.Parameter(torch.ones(4))
    made = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        made.append(x * weight)
        return made[-1]

    model = wrap(forward)
    read = recorded(model, detach=False)["model.inner"].output
    assert read.data_ptr() != made[-1].data_ptr()
    torch.autograd.backward(read.sum())
    assert weight.grad is not None
    with nnsights_own():
        assert recorded(model, detach=False)["model.inner"].output.data_ptr() == made[-1].data_ptr()


@row("A module or path that does not exist")
def test_unknown_modules() -> None:
    model = wrap(lambda x: x)

    def run() -> Any:
        return recorded(model, modules=["model.iner"])

    with pytest.raises(nntap.UnknownModuleError, match=r"model\.iner.*closest.*model\.inner"):
        run()
    if NEWEST:
        with nnsights_own():
            assert list(run().keys()) == []


@row("`modules=`")
def test_what_modules_may_be() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    model = nnsight.NNsight(Stack())
    both = ["model.blocks.0", "model.blocks.1"]
    for modules in (
        model.blocks,
        model._module.blocks,
        model._module.blocks[:],
        "blocks",
        "model.blocks",
        "model.b*",
        "blocks.*",
        "model.blocks.?",
        re.compile(r"model\.blocks\.\d"),
        lambda path, module: type(module) is nn.Identity,
        ["blocks.0", model.blocks[1]],
        [model._module.blocks[0], model._module.blocks[1]],
    ):
        assert recorded(model, modules=modules).keys() == both
    assert recorded(model, modules=model.blocks[1]).keys() == both[1:]
    with nnsights_own():
        assert list(recorded(model, modules=[model.blocks[0], "model.blocks.1"]).keys()) == both


@row("`device`, `dtype`")
def test_names_of_devices_and_dtypes() -> None:
    model = wrap(lambda x: x)
    for dtype in ("float16", "torch.float16", "half", torch.float16):
        assert recorded(model, device="cpu", dtype=dtype)["model.inner"].output.dtype == torch.float16

    def run(**options: Any) -> None:
        recorded(model, **options)

    for options in ({"dtype": "float17"}, {"device": "nowhere"}):
        with pytest.raises(ValueError, match="is not allowed"):
            run(**options)


@row("Both `include_*` false")
def test_nothing_to_record() -> None:
    model = wrap(lambda x: x)

    def run() -> Any:
        return recorded(model, include_output=False)

    with pytest.raises(ValueError, match="would record nothing"):
        run()
    if NEWEST:
        with nnsights_own():
            assert list(run().keys()) == []


@row("`non_blocking=True`")
def test_non_blocking() -> None:
    model = wrap(lambda x: x + 1)
    assert (recorded(model, non_blocking=True)["model.inner"].output == 2).all()


@row("`len(cache)`, iteration, `values()`, `items()`")
def test_a_cache_is_a_mapping() -> None:
    cache = recorded(wrap(lambda x: x))
    assert len(cache) == 2
    assert list(cache) == cache.keys() == ["model.inner", "model"]
    assert [path for path, _ in cache.items()] == cache.keys()
    assert all(entry.output.shape == (2, 4) for entry in cache.values())
    if NEWEST:
        with nnsights_own():
            own = recorded(wrap(lambda x: x))
            assert not hasattr(own, "items") or not hasattr(own, "values")


@row("`cache[path][i]`, `for step in cache[path]`")
def test_steps() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(self.inner(x) + 1)

    model = nnsight.NNsight(Twice())
    entry = recorded(model)["model.inner"]
    assert [step.output[0, 0].item() for step in entry] == [1, 2]
    assert [entry[i].output[0, 0].item() for i in (0, 1, -1)] == [1, 2, 2]
    assert [output[0, 0].item() for output in entry.output] == [1, 2]
    if NEWEST:
        with nnsights_own():
            own = recorded(model)["model.inner"]
            with pytest.raises(TypeError):
                own[0]
            with pytest.raises(TypeError):
                list(own)


@dataclasses.dataclass
class Result:
    value: torch.Tensor
    name: str


@row("Dataclass outputs")
def test_dataclasses() -> None:
    made = []

    def forward(x: torch.Tensor) -> Result:
        made.append(Result(x + 1, "a"))
        return made[-1]

    model = wrap(forward)
    read = recorded(model)["model.inner"].output
    made[-1].value.zero_()
    assert (type(read), read.name) == (Result, "a")
    assert (read.value == 2).all()
    with nnsights_own():
        assert recorded(model)["model.inner"].output is made[-1]

    named = wrap(lambda x: BaseModelOutput(last_hidden_state=x.half()))
    read = recorded(named, dtype=torch.float64)["model.inner"].output
    assert (type(read), read.last_hidden_state.dtype) == (BaseModelOutput, torch.float64)
    with nnsights_own():
        own = recorded(named, dtype=torch.float64)["model.inner"].output
        assert own.last_hidden_state.dtype == (torch.float64 if NEWEST else torch.float16)


@row("Tensors made in inference mode")
def test_inference_mode() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return x + 1

    model = wrap(forward)
    assert not recorded(model)["model.inner"].output.is_inference()
    with nnsights_own():
        assert recorded(model)["model.inner"].output.is_inference()


@row("Strides of a tensor that overlaps itself or has gaps")
def test_strides() -> None:
    model = wrap(lambda x: torch.arange(100.0)[::25])
    read = recorded(model)["model.inner"].output
    assert (read.stride(), read.untyped_storage().nbytes()) == ((1,), 16)
    with nnsights_own():
        own = recorded(model)["model.inner"].output
        assert (own.stride(), own.untyped_storage().nbytes()) == ((25,), 400)
