"""Random programs of nnsight code: calls of `tracer.cache()`, interventions, skips, stops, invokes, generations.

The programs edit values out of place only: in-place edits are where nnsight's own cache and nntap's are meant to
differ, see under_nnsight/test_differences.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from hypothesis import strategies as st

from models import PROMPT

LAYERS = 2
PROMPTS = [PROMPT, "The Tower is in Rome", "New York and Paris"]
INPUTS = [torch.ones(1, 4), torch.arange(12.0).view(3, 4) / 10]

Place = tuple[str, str]  # a module's path, and "input" or "output"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What programs may do with a model."""

    places: tuple[Place, ...]  # where a value may be edited, in the order in which the model gets there
    selectable: tuple[str, ...]
    skippable: tuple[str, ...]
    inputs: tuple[Any, ...]


def _both(path: str) -> list[Place]:
    return [(path, "input"), (path, "output")]


def _layer(i: int) -> list[Place]:
    path = f"transformer.h.{i}"
    mlp = [(f"{path}.mlp", "input"), *_both(f"{path}.mlp.c_fc"), (f"{path}.mlp", "output")]
    return [*_both(f"{path}.ln_1"), *_both(f"{path}.attn.c_attn"), *_both(f"{path}.ln_2"), *mlp]


GPT2 = Subject(
    places=(
        ("transformer.wte", "output"),
        *(place for i in range(LAYERS) for place in _layer(i)),
        *_both("transformer.ln_f"),
        *_both("lm_head"),
    ),
    selectable=(
        *("transformer", "transformer.wte", "transformer.drop", "transformer.ln_f", "lm_head"),
        *(f"transformer.h.{i}{name}" for i in range(LAYERS) for name in ("", ".attn", ".mlp", ".mlp.c_fc", ".ln_1")),
    ),
    skippable=tuple(f"transformer.h.{i}.mlp" for i in range(LAYERS)),
    inputs=tuple(PROMPTS),
)
LOOPED = Subject(
    places=(*_both("embed"), *_both("cell.mix"), *_both("head")),
    selectable=("embed", "cell", "cell.mix", "head"),
    skippable=("embed", "head"),
    inputs=tuple(INPUTS),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `tracer.cache()`."""

    paths: tuple[str, ...] | None
    by_envoy: bool
    options: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Block:
    """What one block of intervention code does."""

    given: Any
    requests: tuple[Request, ...]
    edits: tuple[tuple[Place, str], ...] = ()  # in the model's order
    stops_at: Place | None = None


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([torch.float16, torch.bfloat16, torch.float64]),
        "device": st.sampled_from([None, torch.device("cpu")]),
        "include_inputs": st.booleans(),
        "include_output": st.booleans(),
        "detach": st.booleans(),
    },
).map(lambda options: options if options.get("include_inputs") else {**options, "include_output": True})


def requests(subject: Subject) -> st.SearchStrategy[Request]:
    paths = st.none() | st.lists(st.sampled_from(subject.selectable), min_size=1, max_size=4, unique=True).map(tuple)
    return st.builds(Request, paths, st.booleans(), OPTIONS)


@st.composite
def blocks(draw: st.DrawFn, subject: Subject, skips: bool = True, stops: bool = True) -> Block:
    """Skips a module, stops the run, or does neither."""
    places = subject.places
    edited = draw(st.dictionaries(st.sampled_from(places), st.sampled_from(["double", "replace"]), max_size=4))
    stops_at = draw(st.none() | st.sampled_from(places)) if stops else None
    if stops_at is not None:
        edited = {place: how for place, how in edited.items() if places.index(place) < places.index(stops_at)}
    elif skips and draw(st.booleans()):
        skipped = draw(st.sampled_from(subject.skippable))
        edited = {place: how for place, how in edited.items() if not f"{place[0]}.".startswith(f"{skipped}.")}
        edited[skipped, "input"] = "skip"
    return Block(
        draw(st.sampled_from(subject.inputs)),
        tuple(draw(st.lists(requests(subject), min_size=1, max_size=2))),
        tuple(sorted(edited.items(), key=lambda edit: places.index(edit[0]))),
        stops_at,
    )


# ---- running them; nnsight reads the source of the blocks ----


def at(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    return model


def ask(tracer: Any, model: Any, request: Request) -> Any:
    if request.paths is None:
        return tracer.cache(**request.options)
    named = [at(model, path) if request.by_envoy else f"model.{path}" for path in request.paths]
    return tracer.cache(modules=named, **request.options)


def edit(model: Any, place: Place, how: str) -> None:
    path, side = place
    module = at(model, path)
    if how == "skip":
        module.skip(skipped_output(path, module.input))
    elif how == "double":
        setattr(module, side, getattr(module, side) * 2)
    else:
        setattr(module, side, torch.ones_like(getattr(module, side)))


def skipped_output(path: str, value: torch.Tensor) -> torch.Tensor:
    return value[..., :3] + 1 if path == "head" else value + 1


def run_trace(model: Any, block: Block) -> list[Any]:
    caches: list[Any] = []
    with model.trace(block.given) as tracer:
        for request in block.requests:
            caches.append(ask(tracer, model, request))
        for place, how in block.edits:
            edit(model, place, how)
        if block.stops_at is not None:
            getattr(at(model, block.stops_at[0]), block.stops_at[1]).save()
            tracer.stop()
    return caches


def run_invokes(model: Any, first: Block, second: Block, whole: Block) -> list[Any]:
    """Two invokes with inputs of their own, and one that sees the whole batch."""
    caches: list[Any] = []
    with model.trace() as tracer:
        with tracer.invoke(first.given):
            for request in first.requests:
                caches.append(ask(tracer, model, request))
            for place, how in first.edits:
                edit(model, place, how)
        with tracer.invoke([second.given, first.given]):
            for request in second.requests:
                caches.append(ask(tracer, model, request))
            for place, how in second.edits:
                edit(model, place, how)
        with tracer.invoke():
            for request in whole.requests:
                caches.append(ask(tracer, model, request))
            for place, how in whole.edits:
                edit(model, place, how)
    return caches


def run_generation(model: Any, block: Block, steps: int, acts_in: int) -> list[Any]:
    """Edits and stops in one step of several."""
    caches: list[Any] = []
    with model.generate(block.given, max_new_tokens=steps) as tracer:
        for request in block.requests:
            caches.append(ask(tracer, model, request))
        for _ in tracer.iter[acts_in : acts_in + 1]:
            for place, how in block.edits:
                edit(model, place, how)
            if block.stops_at is not None:
                getattr(at(model, block.stops_at[0]), block.stops_at[1]).save()
                tracer.stop()
    return caches
