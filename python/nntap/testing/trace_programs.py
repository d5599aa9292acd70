"""Random programs under nnsight: caches, interventions, skips, stops and errors, in the model and in the block."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any, ClassVar

import torch
from nnsight import NNsight

from nntap.nnsight import installed
from nntap.testing.model_programs import ModelProgram
from nntap.testing.models import Given, subjects
from nntap.testing.programs import Stop
from nntap.testing.watch import Watch

Edit = tuple[str, str]  # a module's path, and what is done there

_LAST = ("raise", "stop")


@cache
def _wrapped() -> dict[torch.nn.Module, Any]:
    return {subject.model: NNsight(subject.model) for subject in subjects(TraceProgram.purpose)}


class TraceProgram(ModelProgram):
    """The same as `ModelProgram`, with captures that are nnsight's caches, on the core, and end with their trace."""

    purpose: ClassVar[str] = "trace"

    def run(self) -> None:
        with installed():
            super().run()

    def start_watches(self) -> None:
        """Not before there is a trace."""

    def run_model(self, given: Given) -> None:
        names = {module: f"model.{name}".rstrip(".") for name, module in self.subject.model.named_modules()}
        for _ in range(self.random.randint(1, 2)):
            self.watches.append(Watch({module: names[module] for module in self.some_modules()}, self.some_options()))
        edits = self._some_edits()
        changed = [path for path, what in edits if what == "change input"]
        self.subject.follower.replaced = {self.subject.model.get_submodule(path) for path in changed}
        _trace(_wrapped()[self.subject.model], given, self.watches, edits)

    def end_run(self) -> None:
        self.stop_all()
        gc.collect()  # a block that stops the run, or raises, is a cycle of nnsight's own

    def _some_edits(self) -> list[Edit]:
        places = self.subject.places
        paths = sorted(self.random.sample(places, self.random.randrange(3)), key=places.index)
        edits = [(path, self.random.choice(("overwrite", "change output", "change input", "skip"))) for path in paths]
        edits = [(path, what) for path, what in edits if not any(_inside(path, other) for other in edits)]
        if edits and self.random.random() < 0.3:
            edits[-1] = (edits[-1][0], self.random.choice(_LAST))
        return edits


def _inside(path: str, edit: Edit) -> bool:
    """Whether the path's module comes before the edited module's output, and so is reached too early, or never."""
    return path.startswith(f"{edit[0]}.") and edit[1] in ("skip", "change input")


def _trace(model: Any, given: Given, watches: list[Watch], edits: list[Edit]) -> None:
    args, kwargs = given
    with model.trace(*args, **kwargs) as tracer:
        for watch in watches:
            watch.cache = tracer.cache(modules=list(watch.paths.values()), **watch.options)
        for path, what in edits:
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
