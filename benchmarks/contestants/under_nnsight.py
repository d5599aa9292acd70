"""Contestants under nnsight: its own cache, the same on nntap, and ``.output.save()`` module by module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import nntap
from benchmarks.contestants.plain import in_lists
from benchmarks.contestants.way import Location, Records, Request, Way, watched
from benchmarks.models import Subject, Unsuited, twin


@dataclass(frozen=True)
class _Traced:
    """A module tree under nnsight, its root envoy, and what makes the tracer of one run.

    `start` is no Python function: nnsight looks for the ``with`` statement in the frame that called it.
    """

    module: nn.Module
    envoy: Any
    start: Callable[[], Any]

    def envoys(self) -> dict[str, Any]:
        """By module path. (An attribute of an envoy would do, but for a module that is called "output".)"""
        return {_module_path(path): envoy for path, envoy in self.envoy.modules(names=True)}


def cache(subject: Subject, request: Request) -> Way:
    """``tracer.cache()`` as it is installed at the moment: nnsight's own unless nntap has taken its place."""
    traced = _traced(subject)
    modules = None if request.modules is None else [_envoy_path(path) for path in request.modules]
    device = None if request.device is None else torch.device(request.device)
    options = {"device": device, "dtype": request.dtype, "include_inputs": request.inputs}

    def run() -> Any:
        with traced.start() as tracer:
            made = tracer.cache(modules=modules, **options)
        return made

    return Way(run, partial(_in_cache, request), watched(traced.module, request))


def cache_on_nntap(subject: Subject, request: Request) -> Way:
    try:
        with nntap.installed():
            pass
    except nntap.UnsupportedNnsightError as error:
        raise Unsuited(str(error)) from error
    way = cache(subject, request)
    return Way(way.run, way.records, way.watch, around=nntap.installed)


def nothing(subject: Subject, request: Request) -> Way:
    """A trace that records nothing: what the others cannot go below."""
    traced = _traced(subject)

    def run() -> None:
        with traced.start():
            pass

    return Way(run, lambda made: iter(()), {})


def save(subject: Subject, request: Request) -> Way:
    """``.output.save()`` of each module; the tensors stay where they are."""
    if request.dtype is not None:
        raise Unsuited("keeps outputs in their dtype")
    if request.device is not None and request.device != subject.device:
        raise Unsuited("keeps outputs where they are")
    return _save(subject, request, lambda value: value)


def save_moved(subject: Subject, request: Request) -> Way:
    """``.output.cpu().save()`` of each module, with the cast where one is asked for."""
    if request.device is None and request.dtype is None:
        raise Unsuited("nothing is moved or cast")
    return _save(subject, request, lambda value: pytree.tree_map_only(torch.Tensor, request.moved, value))


def _save(subject: Subject, request: Request, keep: Callable[[Any], Any]) -> Way:
    from nnsight import save as nnsight_save

    if subject.steps:
        raise Unsuited("a run of one step only")
    traced = _traced(subject)
    envoys = traced.envoys()
    order = _order_of_visits(subject, request)

    def run() -> dict[Location, list[Any]]:
        made: dict[Location, list[Any]] = {}
        with traced.start():
            for path, kind in order:  # nnsight wants them in the order in which the model comes to them
                value = envoys[path].output if kind == "output" else envoys[path].inputs
                made[path, kind] = [nnsight_save(keep(value))]
        return made

    return Way(run, in_lists, watched(traced.module, request))


def _traced(subject: Subject) -> _Traced:
    """A twin of the model under nnsight."""
    if subject.steps:
        from nnsight import LanguageModel

        from benchmarks.tokenizer import tokenizer

        model = LanguageModel(twin(subject.model), tokenizer=tokenizer())
        ids = subject.inputs["input_ids"]
        return _Traced(model._module, model, partial(model.generate, ids, **subject.generation))
    from nnsight import NNsight

    traced = NNsight(twin(subject.model))
    return _Traced(traced._module, traced, partial(traced.trace, **subject.inputs))


def _order_of_visits(subject: Subject, request: Request) -> list[Location]:
    """What one run comes to, in order; of a module that is called again, the first visit."""
    order: dict[Location, None] = {}
    handles = []
    for path, module in watched(subject.model, request).items():
        if request.inputs:
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: order.setdefault((path, "inputs"))))
        handles.append(module.register_forward_hook(lambda *_, path=path: order.setdefault((path, "output"))))
    try:
        with torch.no_grad():
            subject.forward(subject.model)
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _in_cache(request: Request, made: Any) -> Records:
    """Everything in a cache, nntap's or nnsight's own. Both give lists where a module was called several times."""
    for key in made.keys():  # noqa: SIM118  (nnsight's cannot be iterated)
        entry = made[key]
        for kind in ("output", "inputs") if request.inputs else ("output",):
            value = getattr(entry, kind)
            for visit in value if len(entry) > 1 else [value]:
                yield (_module_path(key), kind), visit


def _envoy_path(path: str) -> str:
    return f"model.{path}" if path else "model"


def _module_path(envoy_path: str) -> str:
    return envoy_path.removeprefix("model").removeprefix(".")
