"""nnsight 0.7: caches are forward hooks, kept in the order of their ``mediator_idx`` among the hooks of interventions;
an infinite one comes last. They go when the run is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from nnsight import util
from nnsight.intervention.batching import Batcher
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.hooks import add_ordered_hook
from nnsight.intervention.interleaver import Interleaver, Mediator
from nnsight.intervention.tracing.tracer import InterleavingTracer

from nntap.core import INPUTS, OUTPUT, location_code
from nntap.nnsight.adapter import Recording
from nntap.nnsight.envoys import NAMES
from nntap.nnsight.missed import Missed

RELIES_ON = {
    InterleavingTracer: ("cache", "model"),
    Mediator: ("set_user_cache", "batch_group", "interleaver"),
    Interleaver: ("current", "batcher", "cancel"),
    Envoy: ("modules", "path", "interleaver", "interleaving", "_module", "_alias"),
    Batcher: ("_narrow", "needs_batching"),
}


def tracer_class() -> type:
    return InterleavingTracer  # type: ignore[no-any-return]


def root(tracer: Any) -> Any:
    return tracer.model


def worker(tracer: Any) -> Any:
    model = getattr(tracer, "model", None)  # gone when the trace is over
    return model.interleaver.current if model is not None and model.interleaving else None


def members(root: Any) -> list[Any] | None:
    return None


def aliases(envoy: Any) -> Iterable[str]:
    return envoy._alias.alias_to_name if envoy._alias is not None else ()


_left: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
"""Handles of the hooks of an interleaver's run."""


def replacements() -> Iterable[tuple[type, str, Any]]:
    yield Interleaver, "cancel", _cancel_and_remove_hooks(Interleaver.cancel)


def _cancel_and_remove_hooks(original: Callable[[Any], None]) -> Callable[[Any], None]:
    # nnsight removes the hooks of the blocks that are still waiting. A block that has nothing left to do, as one that
    # only records, is gone by then, and its hooks would record every later call of the model.
    @wraps(original)
    def cancel(self: Any) -> None:
        try:
            original(self)
        finally:
            for handle in _left.pop(self, ()):
                handle.remove()

    return cancel


def feed(recording: Recording, worker: Any) -> None:
    envoys = recording.model.named_envoys()
    left = _left.setdefault(worker.interleaver, [])
    for index, path in enumerate(recording.paths):
        for slot in recording.slots:
            record = partial(recording.recorder.record, location_code(index, slot))
            hook = _HOOKS[slot](record, worker, envoys[path].interleaver.batcher)
            hook.mediator_idx = float("inf")
            left.append(add_ordered_hook(envoys[path]._module, hook, NAMES[slot]))
    worker.set_user_cache(Missed(recording))


def _output_hook(record: Callable[[Any], None], worker: Any, batcher: Any) -> Any:
    def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
        _record_rows(record, worker, batcher, output)

    return hook


def _inputs_hook(record: Callable[[Any], None], worker: Any, batcher: Any) -> Any:
    def hook(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        _record_rows(record, worker, batcher, (args, kwargs))

    return hook


_HOOKS = {OUTPUT: _output_hook, INPUTS: _inputs_hook}


def _record_rows(record: Callable[[Any], None], worker: Any, batcher: Any, value: Any) -> None:
    # The group is read at every call: a worker without rows, or not scheduled in this forward (-1), sees nothing.
    group = worker.batch_group
    if group is None or group[0] == -1:
        return
    if batcher.needs_batching:
        value = util.apply(value, partial(batcher._narrow, group), torch.Tensor)
    record(value)
