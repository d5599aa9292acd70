"""nnsight 0.6: its interleaver gives every value to every cache of the block that made it, in the model's thread, after
interventions and narrowed to the block's rows; blocks run in threads of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nnsight.intervention.batching import Batcher
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import Interleaver, Mediator
from nnsight.intervention.tracing.tracer import InterleavingTracer

from nntap.nnsight.adapter import Recording
from nntap.nnsight.missed import Missed

RELIES_ON = {
    InterleavingTracer: ("cache", "model"),
    Mediator: ("set_user_cache", "user_cache"),
    Interleaver: ("current",),
    Envoy: ("modules", "path", "interleaving", "_interleaver", "_module", "_alias"),
    Batcher: ("narrow",),
}


class Observer(Missed):
    """A cache as nnsight's interleaver sees it."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self._codes = recording.codes()
        self._record = recording.recorder.record

    def add(self, provider: str, value: Any) -> None:
        """Records the value of ``"{path}.output.i{step}"``, if it is asked for."""
        code = self._codes.get(provider.rpartition(".i")[0])
        if code is not None:
            self._record(code, value)


def tracer_class() -> type:
    return InterleavingTracer  # type: ignore[no-any-return]


def root(tracer: Any) -> Any:
    return tracer.model


def worker(tracer: Any) -> Any:
    model = getattr(tracer, "model", None)  # gone when the trace is over
    return model._interleaver.current if model is not None and model.interleaving else None


def members(root: Any) -> list[Any] | None:
    return None


def aliases(envoy: Any) -> Iterable[str]:
    return envoy._alias.alias_to_name if envoy._alias is not None else ()


def replacements() -> Iterable[tuple[type, str, Any]]:
    return ()


def feed(recording: Recording, worker: Any) -> None:
    worker.set_user_cache(Observer(recording))
