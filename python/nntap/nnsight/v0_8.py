"""nnsight 0.8: its interleaver asks each cache of a run once for the locations it keeps, and gives it every value that
reaches one of them, after interventions and narrowed to the rows of the cache's invoke."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from threading import Lock
from typing import Any
from weakref import WeakSet

from nnsight.intervention.batching import Batcher
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import Interleaver, Mediator
from nnsight.intervention.source import Controller, State, run_body
from nnsight.intervention.tracer import InterleavingTracer

from nntap.core import ControllerCall, Handle
from nntap.nnsight.adapter import Recording

RELIES_ON = {
    InterleavingTracer: ("cache", "envoy"),
    Mediator: ("current", "caches", "pending"),
    Interleaver: ("envoys", "handle", "observers", "reindex", "subscriptions", "observe_selected", "mediators"),
    Envoy: ("modules", "path", "interleaver", "_module", "_aliases"),
    Batcher: ("narrow",),
    Controller: ("__call__",),
    State: ("active",),
}

# The names in the code of `Interleaver.handle` as the core knows it.
_HANDLE_USES = {
    *("counts", "get", "observers", "parked", "fragments", "enabled", "fragmented", "_ready", "whole", "handle"),
    *("Exception", "defer_exceptions", "exception", "isinstance", "EarlyStopException", "pending"),
    *("_reindex_parked", "batcher", "assemble_skip", "narrow", "batch_group", "observe_selected"),
}

# The same of nnsight.intervention.source's `Controller.__call__`, `State.active` and `run_body`.
_CONTROLLER_USES = {"state", "module_ref", "active", "run_body", "handle", "NO_SKIP", "_as_fragment"}
_ACTIVE_USES = {"routes", "interleaving", "busy"}
_RUN_BODY_USES = {"__dict__", "get", "body", "pre_forward", "post_forward"}


class Observer:
    """A cache as nnsight's interleaver sees it. The run's worker holds it until the run is over."""

    def __init__(self, recording: Recording) -> None:
        self._codes = recording.codes()
        self.observe_selected = recording.recorder.record  # called with a location's code and a value

    def subscriptions(self) -> dict[str, int]:
        """The code to hand back with each value, by location. Not to be changed."""
        return self._codes


def tracer_class() -> type:
    return InterleavingTracer  # type: ignore[no-any-return]


def root(tracer: Any) -> Any:
    return tracer.envoy


def worker(tracer: Any) -> Any:
    try:
        mediator = Mediator.current("tracer.cache()")
    except ValueError:
        return None
    if mediator.pending is not None:
        raise ValueError(
            "tracer.cache() was called after a model value was read or changed: call it at the start of the block"
        )
    return mediator


def members(root: Any) -> list[Any] | None:
    return list(root.interleaver.envoys.data.values())


def aliases(envoy: Any) -> Iterable[str]:
    return envoy._aliases  # type: ignore[no-any-return]


def replacements() -> Iterable[tuple[type, str, Any]]:
    # The core does what these functions do where nobody waits; if a release changes one, nnsight's stays.
    if set(Interleaver.handle.__code__.co_names) == _HANDLE_USES:
        yield Interleaver, "handle", Handle(Interleaver.handle)
        if _knows_controllers():
            yield from RecordingRuns().replacements()


def _knows_controllers() -> bool:
    functions = {Controller.__call__: _CONTROLLER_USES, State.active: _ACTIVE_USES, run_body: _RUN_BODY_USES}
    return all(set(function.__code__.co_names) == uses for function, uses in functions.items())


class RecordingRuns:
    """Has the core do the work of nnsight's ``Controller.__call__``, the forward of each of its modules, while some
    run records. Not in between: torch.compile sees through nnsight's function, and not through the core's."""

    def __init__(self) -> None:
        self._nnsights = Controller.__call__
        self._ours = ControllerCall(Controller.__call__)
        self._running: WeakSet[Interleaver] = WeakSet()
        self._lock = Lock()  # of the set, and of which of the two is in place

    def replacements(self) -> Iterable[tuple[type, str, Any]]:
        enter, leave = Interleaver.__enter__, Interleaver.__exit__

        @wraps(enter)
        def __enter__(interleaver: Any) -> Any:
            entered = enter(interleaver)
            if any(isinstance(cache, Observer) for worker in interleaver.mediators for cache in worker.caches):
                self._start(interleaver)
            return entered

        @wraps(leave)
        def __exit__(interleaver: Any, *error: Any) -> Any:
            self._stop(interleaver)
            return leave(interleaver, *error)

        yield Interleaver, "__enter__", __enter__
        yield Interleaver, "__exit__", __exit__

    def _start(self, interleaver: Any) -> None:
        with self._lock:
            self._running.add(interleaver)
            Controller.__call__ = self._ours

    def _stop(self, interleaver: Any) -> None:
        with self._lock:
            self._running.discard(interleaver)
            if not self._running:
                Controller.__call__ = self._nnsights


def feed(recording: Recording, worker: Any) -> None:
    worker.caches.append(Observer(recording))
