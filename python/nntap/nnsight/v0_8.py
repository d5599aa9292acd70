"""nnsight 0.8: its interleaver asks each cache of a run once for the locations it keeps, and gives it every value that
reaches one of them, after interventions and narrowed to the rows of the cache's invoke."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nnsight.intervention.batching import Batcher
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import Interleaver, Mediator
from nnsight.intervention.source import Controller, State
from nnsight.intervention.tracer import InterleavingTracer

from nntap.nnsight import v0_8_routing
from nntap.nnsight.adapter import Recording

RELIES_ON = {
    InterleavingTracer: ("cache", "envoy"),
    Mediator: ("current", "caches", "pending", "alive", "interleaver"),
    Interleaver: ("envoys", "handle", "observers", "reindex", "subscriptions", "observe_selected", "mediators"),
    Envoy: ("modules", "path", "interleaver", "root", "_module", "_aliases"),
    Batcher: ("narrow", "batching"),
    Controller: ("state", "module_ref"),
    State: ("active", "routes", "body"),
}


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
    if tracer.envoy is not None:
        return tracer.envoy
    # The block of an edit runs in later traces, when the edit's own tracer has let the model go.
    return next(iter(Mediator.current("tracer.cache()").interleaver.envoys.values())).root


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
    return v0_8_routing.replacements(is_ours=lambda cache: isinstance(cache, Observer))


def feed(recording: Recording, worker: Any) -> None:
    worker.caches.append(Observer(recording))
