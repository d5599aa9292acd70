"""Contestants that need nothing but torch: nntap itself, and what people write by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import nntap
from benchmarks.contestants.way import Location, Records, Request, Way, outputs_only, watched
from benchmarks.models import Subject, Unsuited


def bare(subject: Subject, request: Request) -> Way:
    """The floor: nothing is recorded."""
    return Way(partial(subject.forward, subject.model), lambda made: iter(()), {})


def capture(subject: Subject, request: Request) -> Way:
    modules = None if request.modules is None else list(request.modules)
    options = {"device": request.device, "dtype": request.dtype, "include_inputs": request.inputs}

    def run() -> nntap.Cache:
        with nntap.capture(subject.model, modules, **options) as cache:
            subject.forward(subject.model)
        return cache

    return Way(run, partial(in_cache, request), watched(subject.model, request))


def in_cache(request: Request, cache: nntap.Cache) -> Records:
    """Everything in one of nntap's caches."""
    for path in cache:
        for step in cache[path]:
            yield (path, "output"), step.output
            if request.inputs:
                yield (path, "inputs"), step.inputs


class HookDict(defaultdict[Location, list[Any]]):
    """Plain forward hooks that put what `keep` makes of each tensor into a dictionary."""

    def __init__(
        self, modules: Mapping[str, nn.Module], inputs: bool, keep: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__(list)
        self._keep = keep
        self._handles = [module.register_forward_hook(self._hook(path)) for path, module in modules.items()]
        if inputs:
            self._handles += [
                module.register_forward_pre_hook(self._pre_hook(path), with_kwargs=True)
                for path, module in modules.items()
            ]

    def _hook(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self[path, "output"].append(pytree.tree_map_only(torch.Tensor, self._keep, output))

        return hook

    def _pre_hook(self, path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self[path, "inputs"].append(pytree.tree_map_only(torch.Tensor, self._keep, (args, kwargs)))

        return hook

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _hooks(
    subject: Subject, request: Request, keep: Callable[[torch.Tensor], torch.Tensor], after: Callable[[], Any]
) -> Way:
    modules = watched(subject.model, request)

    def run() -> HookDict:
        hooks = HookDict(modules, request.inputs, keep)
        try:
            subject.forward(subject.model)
            after()
        finally:
            hooks.remove()
        return hooks

    return Way(run, in_lists, modules)


def in_lists(made: Mapping[Location, list[Any]]) -> Records:
    for location, values in made.items():
        for value in values:
            yield location, value


def hooks_to_device(subject: Subject, request: Request) -> Way:
    """``output.detach().cpu()`` in a forward hook, with the cast where one is asked for."""
    return _hooks(subject, request, request.moved, lambda: None)


def hooks_with_clone(subject: Subject, request: Request) -> Way:
    """What makes hooks on a CPU model right: a clone, or the cast."""
    device = request.device or torch.device(subject.device)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(device=device, dtype=request.dtype, copy=True)

    return _hooks(subject, request, keep, lambda: None)


def hooks_with_pinned_copies(subject: Subject, request: Request) -> Way:
    """A non-blocking copy into pinned memory in each hook, and one synchronise at the end of the run."""
    if subject.device != "cuda":
        raise Unsuited("for CUDA models")
    if request.device != "cpu":
        raise Unsuited("copies to the host")

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if not tensor.is_cuda:
            return tensor.to(dtype=request.dtype, copy=True)
        pinned = torch.empty(tensor.shape, dtype=request.dtype or tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    return _hooks(subject, request, keep, torch.cuda.synchronize)


class TraceDict(dict[str, Any]):
    """The dictionary of hooks that is handed on from notebook to notebook: it retains what modules give back."""

    def __init__(self, model: nn.Module, layers: list[str]) -> None:
        super().__init__()
        modules = dict(model.named_modules())
        self._handles = [modules[layer].register_forward_hook(self._retain(layer)) for layer in layers]

    def _retain(self, layer: str) -> Callable[..., None]:
        def retain(module: nn.Module, args: Any, output: Any) -> None:
            self[layer] = output

        return retain

    def __enter__(self) -> TraceDict:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def trace_dict(subject: Subject, request: Request) -> Way:
    outputs_only(request)
    if request.dtype is not None or (request.device is not None and request.device != subject.device):
        raise Unsuited("keeps outputs as and where they are")
    if subject.steps:
        raise Unsuited("keeps the last step only")
    modules = watched(subject.model, request)

    def run() -> TraceDict:
        with TraceDict(subject.model, list(modules)) as made:
            subject.forward(subject.model)
        return made

    return Way(run, lambda made: (((path, "output"), value) for path, value in made.items()), modules)
