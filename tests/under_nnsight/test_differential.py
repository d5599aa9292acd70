"""Random programs, run with nnsight's own cache and with nntap's: both record the same.

The programs edit values out of place only: in-place edits are where the two are meant to differ, see
test_differences.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import models
import nntap
from models import PROMPT

PROMPTS = [PROMPT, "The Tower is in Rome", "New York and Paris"]
LAYERS = 2

# Modules that give back a tensor, in the order in which the model calls them.
_IN_A_LAYER = ("ln_1", "attn.c_attn", "ln_2", "mlp.c_fc", "mlp")
EDITABLE = [
    "transformer.wte",
    *(f"transformer.h.{i}.{name}" for i in range(LAYERS) for name in _IN_A_LAYER),
    "transformer.ln_f",
    "lm_head",
]
SELECTABLE = [
    *EDITABLE,
    *("transformer", "transformer.h.0", "transformer.h.1", "transformer.h.0.attn", "transformer.drop"),
]


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `tracer.cache()`."""

    paths: tuple[str, ...] | None
    by_envoy: bool
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Block:
    """What one block of intervention code does."""

    prompt: str
    requests: tuple[Request, ...]
    edits: tuple[tuple[str, str], ...]  # (module, what is done there), in the model's order
    stops_at: str | None = None


requests = st.builds(
    Request,
    st.none() | st.lists(st.sampled_from(SELECTABLE), min_size=1, max_size=4, unique=True).map(tuple),
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from([torch.float16, torch.bfloat16, torch.float64]),
            "device": st.sampled_from([None, torch.device("cpu")]),
            "include_inputs": st.booleans(),
            "detach": st.just(True),
        },
    ),
)
edits = st.dictionaries(st.sampled_from(EDITABLE), st.sampled_from(["double", "replace"]), max_size=3).map(
    lambda found: tuple(sorted(found.items(), key=lambda item: EDITABLE.index(item[0])))
)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    made = draw(edits)
    # A block can stop or skip only where the model has not been yet.
    later = EDITABLE[EDITABLE.index(made[-1][0]) + 1 :] if made else EDITABLE
    end = draw(st.sampled_from(["nothing", "nothing", "skip", "stop"])) if later else "nothing"
    edited = {path for path, _ in made}
    # A module is skipped when its input is there, before the modules inside it run.
    skippable = [path for path in later if path.endswith("mlp") and f"{path}.c_fc" not in edited]
    if end == "skip" and skippable:
        made = (*made, (draw(st.sampled_from(skippable)), "skip"))
    stops_at = draw(st.sampled_from(later)) if end == "stop" else None
    several = draw(st.lists(requests, min_size=1, max_size=2))
    return Block(draw(st.sampled_from(PROMPTS)), tuple(several), made, stops_at)


def at(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    return model


def ask(tracer: Any, model: Any, request: Request) -> Any:
    if request.paths is None:
        return tracer.cache(**request.options)
    named = [at(model, path) if request.by_envoy else f"model.{path}" for path in request.paths]
    return tracer.cache(modules=named, **request.options)


def edit(model: Any, path: str, how: str) -> None:
    module = at(model, path)
    if how == "double":
        module.output = module.output * 2
    elif how == "replace":
        module.output = torch.ones_like(module.output)
    else:
        module.skip(module.input + 1)


# ---- the three shapes of a program; nnsight reads their source ----


def run_trace(model: Any, block: Block) -> list[Any]:
    caches: list[Any] = []
    with model.trace(block.prompt) as tracer:
        for request in block.requests:
            caches.append(ask(tracer, model, request))
        for path, how in block.edits:
            edit(model, path, how)
        if block.stops_at is not None:
            at(model, block.stops_at).output.save()
            tracer.stop()
    return caches


def run_invokes(model: Any, first: Block, second: Block) -> list[Any]:
    caches: list[Any] = []
    with model.trace() as tracer:
        with tracer.invoke(first.prompt):
            for request in first.requests:
                caches.append(ask(tracer, model, request))
            for path, how in first.edits:
                edit(model, path, how)
        with tracer.invoke([second.prompt, first.prompt]):
            for request in second.requests:
                caches.append(ask(tracer, model, request))
            for path, how in second.edits:
                edit(model, path, how)
    return caches


def run_generation(model: Any, block: Block, steps: int) -> list[Any]:
    caches: list[Any] = []
    with model.generate(block.prompt, max_new_tokens=steps) as tracer:
        for request in block.requests:
            caches.append(ask(tracer, model, request))
        for path, how in block.edits:
            edit(model, path, how)
    return caches


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


def assert_alike(own: Any, ours: Any) -> None:
    assert type(own) is type(ours)
    if isinstance(own, torch.Tensor):
        assert (own.dtype, own.device, own.shape) == (ours.dtype, ours.device, ours.shape)
        assert own.requires_grad == ours.requires_grad
        assert torch.equal(own, ours)
    elif isinstance(own, dict):
        assert list(own) == list(ours)
        for key in own:
            assert_alike(own[key], ours[key])
    elif isinstance(own, (tuple, list)):
        assert len(own) == len(ours)
        for one, other in zip(own, ours, strict=True):
            assert_alike(one, other)
    elif isinstance(own, (str, int, float, bool, type(None))):
        assert own == ours


def assert_caches_alike(own: list[Any], ours: list[Any]) -> None:
    assert len(own) == len(ours)
    for theirs, mine in zip(own, ours, strict=True):
        assert isinstance(mine, nntap.Cache)
        assert not isinstance(theirs, nntap.Cache)
        assert list(theirs.keys()) == list(mine.keys())
        for path in mine:
            assert_alike(steps_of(theirs, path), steps_of(mine, path))


@pytest.fixture(scope="module")
def model() -> Any:
    return models.gpt2_language_model(layers=LAYERS)


def compare(run: Any, *arguments: Any) -> None:
    torch.manual_seed(0)
    ours = run(*arguments)
    nntap.uninstall()
    try:
        torch.manual_seed(0)
        own = run(*arguments)
    finally:
        nntap.install()
    assert_caches_alike(own, ours)


# `installed` is the same for every example, and so is the model.
anyhow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@anyhow
@given(blocks())
def test_traces(model: Any, block: Block) -> None:
    compare(run_trace, model, block)


@anyhow
@given(blocks(), blocks())
def test_invokes(model: Any, first: Block, second: Block) -> None:
    without = [dataclasses.replace(b, edits=tuple(e for e in b.edits if e[1] != "skip")) for b in (first, second)]
    compare(run_invokes, model, *without)


@anyhow
@given(blocks(), st.integers(1, 3))
def test_generations(model: Any, block: Block, steps: int) -> None:
    compare(run_generation, model, block, steps)
