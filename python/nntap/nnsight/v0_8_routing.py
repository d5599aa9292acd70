"""What the core does in place of the functions of nnsight 0.8 through which every value of a traced model goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps
from threading import RLock
from typing import Any
from weakref import WeakSet

from nnsight.intervention.interleaver import Interleaver
from nnsight.intervention.source import Controller, State, run_body

from nntap.core import ControllerCall, Handle, begin_quiet_run, end_quiet_run

Replacement = tuple[type, str, Any]

# The names in the code of the functions as the core knows them. If a release changes one, nnsight's own stays.
_HANDLE_USES = {
    *("counts", "get", "observers", "parked", "fragments", "enabled", "fragmented", "_ready", "whole", "handle"),
    *("Exception", "defer_exceptions", "exception", "isinstance", "EarlyStopException", "pending"),
    *("_reindex_parked", "batcher", "assemble_skip", "narrow", "batch_group", "observe_selected"),
}
_CONTROLLER_USES = {"state", "module_ref", "active", "run_body", "handle", "NO_SKIP", "_as_fragment"}
_ACTIVE_USES = {"routes", "interleaving", "busy"}
_RUN_BODY_USES = {"__dict__", "get", "body", "pre_forward", "post_forward"}


def replacements(is_ours: Callable[[Any], bool]) -> Iterable[Replacement]:
    """The methods to replace while nntap is installed: the class, the name, and what takes its place.

    Args:
        is_ours: Whether a cache of a run is nntap's.
    """
    if not _is_known(Interleaver.handle, _HANDLE_USES):
        return
    yield Interleaver, "handle", Handle(Interleaver.handle)
    known = {Controller.__call__: _CONTROLLER_USES, State.active: _ACTIVE_USES, run_body: _RUN_BODY_USES}
    if all(_is_known(function, uses) for function, uses in known.items()):
        yield from RecordingRuns(is_ours).replacements()


def _is_known(function: Any, uses: set[str]) -> bool:
    return set(function.__code__.co_names) == uses


# Of the runs that record, and of which of the two calls is in place. The garbage collector may end a run while this
# thread holds it.
_lock = RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class RecordingRuns:
    """Has the core do the work of nnsight's ``Controller.__call__``, the forward of each of its modules, while some
    run records. Not in between: torch.compile sees through nnsight's function, and not through the core's."""

    def __init__(self, is_ours: Callable[[Any], bool]) -> None:
        self._is_ours = is_ours
        self._nnsights = Controller.__call__
        self._ours = ControllerCall(Controller.__call__)
        self._running: WeakSet[Interleaver] = WeakSet()

    def replacements(self) -> Iterable[Replacement]:
        reindex, leave = Interleaver.reindex, Interleaver.__exit__

        @wraps(reindex)  # nnsight's calls it when the workers have started, and when a driver has changed them
        def reindex_and_start(interleaver: Any) -> None:
            reindex(interleaver)
            if any(self._is_ours(cache) for worker in interleaver.mediators for cache in worker.caches):
                self._start(interleaver)
            else:
                self._stop(interleaver)

        @wraps(leave)
        def stop_and_exit(interleaver: Any, *error: Any) -> Any:
            self._stop(interleaver)
            return leave(interleaver, *error)

        yield Interleaver, "reindex", reindex_and_start
        yield Interleaver, "__exit__", stop_and_exit

    def _start(self, interleaver: Any) -> None:
        with _lock:
            self._running.add(interleaver)
            (begin_quiet_run if is_quiet(interleaver) else end_quiet_run)(interleaver)
            Controller.__call__ = self._ours

    def _stop(self, interleaver: Any) -> None:
        with _lock:
            self._running.discard(interleaver)
            end_quiet_run(interleaver)
            if not self._running:
                Controller.__call__ = self._nnsights


def is_quiet(interleaver: Any) -> bool:
    """Whether a run has nothing left to do but to record whole values: its workers have come to their end."""
    fragments, batcher = interleaver.fragments, interleaver.batcher
    return not (
        any(worker.alive for worker in interleaver.mediators)
        or type(interleaver).handle is not Interleaver.handle
        or (fragments is not None and fragments.enabled)
        or (batcher is not None and batcher.batching)
    )
