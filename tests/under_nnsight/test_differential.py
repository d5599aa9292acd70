"""Random programs, run with nnsight's own cache and with nntap's: both record the same."""

from __future__ import annotations

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
from comparing import ONLY_PLAIN, assert_caches_alike
from models import PROMPT
from nntap.core import INPUTS
from nntap.nnsight import _adapter_name
from nntap.nnsight.adapter import Recording
from programs import GPT2, LAYERS, LOOPED, Block, Request, blocks, run_generation, run_invokes, run_trace

ADAPTER = import_module(f"nntap.nnsight.{_adapter_name(nnsight.__version__)}")


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2_language_model(layers=LAYERS)


@pytest.fixture(scope="module")
def looped() -> Any:
    return models.looped()


def compare(run: Callable[..., list[Any]], model: Any, *arguments: Any) -> None:
    ours = run(model, *arguments)
    nntap.uninstall()
    try:
        own = run(model, *arguments)
    finally:
        nntap.install()
    requests = [request for part in arguments if isinstance(part, Block) for request in part.requests]
    assert_caches_alike(own, ours, [request.options for request in requests])


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
