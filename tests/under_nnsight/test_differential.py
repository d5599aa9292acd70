"""Random programs, run with nnsight's own cache and with nntap's: both record the same."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any

import nnsight
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
import nntap
from models import PROMPT
from nntap.core import INPUTS
from nntap.nnsight import _adapter_name
from nntap.nnsight.adapter import Recording
from programs import GPT2, LAYERS, LOOPED, Block, Request, blocks, run_generation, run_invokes, run_trace

ADAPTER = import_module(f"nntap.nnsight.{_adapter_name(nnsight.__version__)}")
# nnsight 0.6 and 0.7 look into lists, tuples and dicts of exactly these types.
ONLY_PLAIN = not nnsight.__version__.startswith("0.8.")


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2_language_model(layers=LAYERS)


@pytest.fixture(scope="module")
def looped() -> Any:
    return models.looped()


# ---- comparing ----


def steps_of(cache: Any, path: str) -> list[tuple[Any, Any]]:
    """(output, inputs) of each step, out of nntap's cache or of any nnsight's."""
    entry = cache[path]
    if isinstance(cache, nntap.Cache):
        return [(step.output, step.inputs) for step in entry]
    if isinstance(entry, list):  # nnsight 0.6 and 0.7
        return [(step.output, step.inputs) for step in entry]
    count = len(entry) if hasattr(type(entry), "__len__") and hasattr(entry, "keys") else 1  # nnsight 0.8
    if count <= 1:
        return [(entry.output, entry.inputs)]
    inputs = entry.inputs if entry.inputs is not None else [None] * count
    outputs = entry.output if entry.output is not None else [None] * count
    return list(zip(outputs, inputs, strict=True))


def as_recorded(value: Any, options: dict[str, Any]) -> Any:
    """What nnsight would have recorded, had it looked into a container that it kept by reference."""
    if isinstance(value, torch.Tensor):
        return (value.detach() if options.get("detach", True) else value).to(dtype=options.get("dtype"))
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = as_recorded(item, options)
        return made
    return type(value)(as_recorded(item, options) for item in value) if isinstance(value, (list, tuple)) else value


def assert_alike(own: Any, ours: Any, options: dict[str, Any]) -> None:
    """Types, order, nesting and values. Of other objects, such as a KV cache, the type: each run makes its own."""
    assert type(own) is type(ours)
    if ONLY_PLAIN and type(own) not in (list, tuple, dict):
        own = as_recorded(own, options)
    if isinstance(own, torch.Tensor):
        assert (own.dtype, own.device, own.shape) == (ours.dtype, ours.device, ours.shape)
        assert own.requires_grad == ours.requires_grad
        assert own.clone().stride() == ours.stride()
        assert torch.equal(own, ours)
    elif isinstance(own, dict):
        assert list(own) == list(ours)
        for key in own:
            assert_alike(own[key], ours[key], options)
    elif isinstance(own, (tuple, list)):
        assert len(own) == len(ours)
        for one, other in zip(own, ours, strict=True):
            assert_alike(one, other, options)
    elif isinstance(own, (str, int, float, bool, type(None))):
        assert own == ours


def assert_caches_alike(own: list[Any], ours: list[Any], requests: list[Request]) -> None:
    for theirs, mine, request in zip(own, ours, requests, strict=True):
        assert isinstance(mine, nntap.Cache)
        assert not isinstance(theirs, nntap.Cache)
        assert list(theirs.keys()) == list(mine.keys())
        for path in mine:
            assert_alike(steps_of(theirs, path), steps_of(mine, path), request.options)


def compare(run: Callable[..., list[Any]], model: Any, *arguments: Any) -> None:
    ours = run(model, *arguments)
    nntap.uninstall()
    try:
        own = run(model, *arguments)
    finally:
        nntap.install()
    requests = [request for part in arguments if isinstance(part, Block) for request in part.requests]
    assert_caches_alike(own, ours, requests)


# ---- random programs ----

# `installed` is the same for every example, and so is the model. Each example is two runs, and nnsight compiles both.
anyhow = settings(
    max_examples=settings.default.max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@anyhow
@given(blocks(GPT2))
def test_traces(model: Any, block: Block) -> None:
    compare(run_trace, model, block)


@anyhow
@given(blocks(LOOPED))
def test_traces_of_a_module_that_is_called_several_times(looped: Any, block: Block) -> None:
    compare(run_trace, looped, block)


several = blocks(GPT2, skips=False, stops=False)  # in several invokes, nnsight takes a skip in all of them only


def without_input_edits(block: Block) -> Block:
    return dataclasses.replace(block, edits=tuple(edit for edit in block.edits if edit[0][1] == "output"))


@anyhow
@given(several, several, several)
def test_invokes(model: Any, first: Block, second: Block, whole: Block) -> None:
    if ONLY_PLAIN:  # there an invoke edits its rows of an input in place, and so what the module before gave back
        first, second, whole = (without_input_edits(block) for block in (first, second, whole))
    compare(run_invokes, model, first, second, whole)


@anyhow
@given(blocks(GPT2), st.integers(1, 3), st.data())
def test_generations(model: Any, block: Block, steps: int, data: st.DataObject) -> None:
    compare(run_generation, model, block, steps, data.draw(st.integers(0, steps - 1)))


# ---- each thing that must agree, broken on purpose ----


def in_tensors(change: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: in_tensors(change, item) for key, item in value.items()}
    return type(value)(in_tensors(change, item) for item in value) if isinstance(value, (tuple, list)) else value


class Spoiled:
    """A recorder that records something else than it is given."""

    def __init__(self, recorder: Any, how: str) -> None:
        self._recorder = recorder
        self._how = how
        self._seen: set[int] = set()

    def record(self, code: int, value: Any) -> None:
        if self._how == "missing inputs" and code & 1 == INPUTS:
            return
        if self._how == "a step too late" and code not in self._seen:
            self._seen.add(code)
            return
        change = {
            "wrong rows": lambda tensor: tensor.roll(1, 0),
            "a wrong dtype": lambda tensor: tensor.double(),
            "a wrong value": lambda tensor: tensor + 1,
            "a wrong shape": lambda tensor: tensor[..., None],
            "wrong strides": lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1),
        }.get(self._how, lambda tensor: tensor)
        if self._how == "a wrong nest":
            value = (value,)
        self._recorder.record(code ^ 2 if self._how == "a wrong module" else code, in_tensors(change, value))


BREAKS = [
    *("missing inputs", "a step too late", "wrong rows", "a wrong dtype", "a wrong value", "a wrong shape"),
    *("wrong strides", "a wrong nest", "a wrong module"),
]


def spoil(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    feed = ADAPTER.feed

    def spoiled_feed(recording: Recording, worker: Any) -> None:
        parts = vars(recording) | {"recorder": Spoiled(recording.recorder, how)}
        feed(Recording(**parts), worker)

    monkeypatch.setattr(ADAPTER, "feed", spoiled_feed)


@pytest.mark.parametrize("how", BREAKS)
def test_the_comparison_notices(how: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(("transformer.h.0.mlp", "lm_head"), True, {"include_inputs": True})
    block = Block(PROMPT, (request,))

    def check() -> None:
        compare(run_invokes, model, block, block, block)
        compare(run_generation, model, block, 2, 0)

    check()
    spoil(monkeypatch, how)
    with pytest.raises((AssertionError, ValueError)):
        check()
