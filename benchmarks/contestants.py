"""The ways to record a forward that are timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

import nntap
from benchmarks.models import Subject, Unsuited, twin

BARE = "bare forward"
CAPTURE = "nntap.capture"
ON_NNTAP = "tracer.cache() on nntap"
NNSIGHTS = "tracer.cache() of nnsight"

Location = tuple[str, str]
"""A module's path, as ``named_modules()`` has it, and "output" or "inputs"."""


@dataclass(frozen=True)
class Request:
    """What is to be recorded, and where to.

    `modules` are paths, or None for every module. `device` and `dtype` as `nntap.capture` takes them.
    """

    modules: tuple[str, ...] | None = None
    inputs: bool = False
    device: str | None = "cpu"
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Way:
    """One contestant, ready to run.

    `run` makes one forward and returns what `records` lists afterwards, a location and a value each, in the order of
    the visits. `model` is the module tree that `run` calls. `around` is entered before each run, off the clock.
    """

    model: nn.Module
    run: Callable[[], Any]
    records: Callable[[Any], Iterator[tuple[Location, Any]]]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Contestant:
    """`needs` is the package it comes with. `make` raises `Unsuited` where it does not apply."""

    name: str
    make: Callable[[Subject, Request], Way]
    needs: str | None = None

    def way(self, subject: Subject, request: Request) -> Way:
        if self.needs is not None and find_spec(self.needs) is None:
            raise Unsuited(f"{self.needs} is not installed: pip install {self.needs.replace('_', '-')}")
        return self.make(subject, request)


def bare(subject: Subject, request: Request) -> Way:
    """The floor: nothing is recorded."""
    return Way(subject.model, lambda: subject.forward(subject.model), lambda result: iter(()))


def capture(subject: Subject, request: Request) -> Way:
    modules = None if request.modules is None else list(request.modules)

    def run() -> nntap.Cache:
        with nntap.capture(
            subject.model, modules, device=request.device, dtype=request.dtype, include_inputs=request.inputs
        ) as cache:
            subject.forward(subject.model)
        return cache

    return Way(subject.model, run, lambda cache: in_cache(cache, request, lambda path: path))


def nnsight_cache(subject: Subject, request: Request) -> Way:
    """`tracer.cache()` as it is installed at the moment: nntap's or nnsight's own."""
    from nnsight import NNsight

    traced = NNsight(twin(subject.model))
    modules = None if request.modules is None else [_envoy_path(path) for path in request.modules]
    device = None if request.device is None else torch.device(request.device)

    def run() -> Any:
        with traced.trace(**subject.inputs) as tracer:
            cache = tracer.cache(modules=modules, device=device, dtype=request.dtype, include_inputs=request.inputs)
        return cache

    return Way(traced._module, run, lambda cache: in_cache(cache, request, _module_path))


def nnsight_on_nntap(subject: Subject, request: Request) -> Way:
    try:
        with nntap.installed():
            pass
    except nntap.UnsupportedNnsightError as error:
        raise Unsuited(str(error)) from error
    way = nnsight_cache(subject, request)
    return Way(way.model, way.run, way.records, nntap.installed)


def in_cache(cache: Any, request: Request, path_of: Callable[[str], str]) -> Iterator[tuple[Location, Any]]:
    """Everything in a cache, nntap's or nnsight's: both have lists where a module was called several times."""
    for key in cache.keys():  # noqa: SIM118  (nnsight's cannot be iterated)
        entry = cache[key]
        several = len(entry) > 1 if isinstance(entry, nntap.Entry) else isinstance(entry.output, list)
        for value in entry.output if several else [entry.output]:
            yield (path_of(key), "output"), value
        if request.inputs:
            for value in entry.inputs if several else [entry.inputs]:
                yield (path_of(key), "inputs"), value


def _envoy_path(path: str) -> str:
    return f"model.{path}" if path else "model"


def _module_path(envoy_path: str) -> str:
    return envoy_path.removeprefix("model").removeprefix(".")


CONTESTANTS = (
    Contestant(BARE, bare),
    Contestant(CAPTURE, capture),
    Contestant(ON_NNTAP, nnsight_on_nntap, needs="nnsight"),
    Contestant(NNSIGHTS, nnsight_cache, needs="nnsight"),
)
