"""Random programs under nnsight: caches, interventions, skips, stops and errors, in the model and in the block; single
runs, several invokes in one batch, generations."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import torch
from nnsight import NNsight

from nntap.nnsight import installed
from nntap.testing.memory import each
from nntap.testing.model_programs import ModelProgram
from nntap.testing.models import Given, subjects
from nntap.testing.programs import Stop
from nntap.testing.watch import Watch

Edit = tuple[str, str]  # a module's path, and what is done there

Kinds = tuple[tuple[str, ...], tuple[str, ...]]  # of edits: those a run goes on after, and those that end it

IN_A_RUN: Kinds = ("overwrite", "change output", "change input", "skip"), ("raise", "stop")
IN_AN_INVOKE: Kinds = ("overwrite", "change output", "change input"), ("raise",)
"""nnsight takes a skip only in all invokes of a batch, and a stop would end the others'."""


class Rows(NNsight):  # type: ignore[misc]
    """A wrapped model whose invokes are put one below the other, as nnsight does it for language models."""

    def _batch_size(self, *inputs: Any, **_: Any) -> int:
        return len(inputs[0]) if inputs else 0

    def _batch(self, invokes: list[Given], _: Any) -> Given:
        return (torch.cat([inputs[0] for inputs, _ in invokes]),), invokes[0][1]


class RowWatch(Watch):
    """What an invoke's cache holds: its own rows of everything that has a row for each of the batch.

    Args:
        first: Of its rows.
        count: How many there are.
        batch: How many all invokes have.
    """

    def __init__(self, paths: dict[torch.nn.Module, str], options: dict[str, Any], first: int, count: int, batch: int):
        super().__init__(paths, options)
        self._rows = slice(first, first + count)
        self._batch = batch

    def takes(self, module: torch.nn.Module, inputs: Any) -> None:
        super().takes(module, self._mine(inputs))

    def takes_instead(self, module: torch.nn.Module, inputs: Any) -> None:
        super().takes_instead(module, self._mine(inputs))

    def gives(self, module: torch.nn.Module, value: Any) -> bool:
        return super().gives(module, self._mine(value))

    def _mine(self, nest: Any) -> Any:
        return each(nest, lambda tensor: tensor[self._rows] if len(tensor) == self._batch else tensor, torch.Tensor)


MakeWatch = Callable[[dict[torch.nn.Module, str], dict[str, Any]], Watch]


@dataclass(frozen=True)
class Block:
    """What stands in a block of nnsight code.

    Attributes:
        given: What the model is called with; nothing in an invoke that sees the whole batch.
    """

    given: Given
    watches: Sequence[Watch]
    edits: Sequence[Edit]


@cache
def _wrapped() -> dict[torch.nn.Module, Any]:
    return {subject.model: Rows(subject.model) for subject in subjects(TraceProgram.purpose)}


class TraceProgram(ModelProgram):
    """The same as `ModelProgram`, with captures that are nnsight's caches, on the core, and end with their trace."""

    purpose: ClassVar[str] = "trace"

    def run(self) -> None:
        with installed():
            super().run()

    def start_watches(self) -> None:
        """Not before there is a trace."""

    def run_model(self, given: Given) -> None:
        model, chance = _wrapped()[self.subject.model], self.random.random()
        self.subject.follower.replaced = set()
        if chance < 0.3 and len(given[0][0]) > 1:
            self._run_invokes(model, given)
        elif chance < 0.6 and self.subject.generation is not None:
            self._run_generation(model, given[0][0])
        else:
            _trace(model, self._block(given, Watch, IN_A_RUN))

    def _run_invokes(self, model: Any, given: Given) -> None:
        (values,), options = given
        rows = self.random.randrange(1, len(values))
        blocks = []
        for first, part in ((0, values[:rows]), (rows, values[rows:])):
            mine = partial(RowWatch, first=first, count=len(part), batch=len(values))
            blocks.append(self._block(((part,), options), mine, IN_AN_INVOKE))
        if self.random.random() < 0.5:
            blocks.append(self._block(((), {}), Watch, IN_AN_INVOKE))
        _invoke(model, blocks)

    def _run_generation(self, model: Any, tokens: torch.Tensor) -> None:
        steps = self.random.randint(1, 3)
        options = {
            "attention_mask": torch.ones_like(tokens),
            "max_new_tokens": steps,
            **(self.subject.generation or {}),
        }
        given = (tokens,), {"fn": self.subject.model.generate, **options}
        _generate(model, self._block(given, Watch, IN_A_RUN), self.random.randrange(steps))

    def _block(self, given: Given, make: MakeWatch, kinds: Kinds) -> Block:
        watches, edits = self._some_watches(make), self._some_edits(kinds)
        changed = [path for path, what in edits if what == "change input"]
        self.subject.follower.replaced |= {self.subject.model.get_submodule(path) for path in changed}
        return Block(given, watches, edits)

    def _some_watches(self, make: MakeWatch) -> list[Watch]:
        names = {module: f"model.{name}".rstrip(".") for name, module in self.subject.model.named_modules()}
        made = []
        for _ in range(self.random.randint(1, 2)):
            made.append(make({module: names[module] for module in self.some_modules()}, self.some_options()))
        self.watches += made
        return made

    def end_run(self) -> None:
        self.stop_all()
        gc.collect()  # a block that stops the run, or raises, is a cycle of nnsight's own

    def _some_edits(self, kinds: Kinds) -> list[Edit]:
        lasting, last = kinds
        places = self.subject.places
        paths = sorted(self.random.sample(places, self.random.randrange(3)), key=places.index)
        edits = [(path, self.random.choice(lasting)) for path in paths]
        edits = [(path, what) for path, what in edits if not any(_inside(path, other) for other in edits)]
        if edits and self.random.random() < 0.3:
            edits[-1] = (edits[-1][0], self.random.choice(last))
        return edits


def _inside(path: str, edit: Edit) -> bool:
    """Whether the path's module comes before the edited module's output, and so is reached too early, or never."""
    return path.startswith(f"{edit[0]}.") and edit[1] in ("skip", "change input")


def _trace(model: Any, block: Block) -> None:
    args, kwargs = block.given
    with model.trace(*args, **kwargs) as tracer:
        _record(tracer, block)
        _edit_all(tracer, model, block)


def _invoke(model: Any, blocks: list[Block]) -> None:
    with model.trace() as tracer:
        for block in blocks:
            args, kwargs = block.given
            with tracer.invoke(*args, **kwargs):
                _record(tracer, block)
                _edit_all(tracer, model, block)


def _generate(model: Any, block: Block, step: int) -> None:
    args, kwargs = block.given
    with model.trace(*args, **kwargs) as tracer:
        _record(tracer, block)
        for _ in tracer.iter[step : step + 1]:
            _edit_all(tracer, model, block)


def _record(tracer: Any, block: Block) -> None:
    for watch in block.watches:
        watch.cache = tracer.cache(modules=list(watch.paths.values()), **watch.options)


def _edit_all(tracer: Any, model: Any, block: Block) -> None:
    for path, what in block.edits:
        _edit(tracer, _at(model, path), what)


def _at(model: Any, path: str) -> Any:
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else getattr(model, name)
    return model


def _edit(tracer: Any, envoy: Any, what: str) -> None:
    if what == "overwrite":
        envoy.output[:] = 0.25
    elif what == "change output":
        envoy.output = envoy.output * 2
    elif what == "change input":
        envoy.input = envoy.input + 1
    elif what == "skip":
        envoy.skip(envoy.input - 1)
    else:
        envoy.output  # noqa: B018  (the model gets this far)
        if what == "raise":
            raise Stop
        tracer.stop()
