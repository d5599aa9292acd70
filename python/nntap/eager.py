"""Compiled models run eagerly while one is captured: a compiled graph does not call the modules it was made of."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

_lock = threading.RLock()  # the garbage collector may end a forgotten capture while this thread holds it
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_captures: dict[int, bool] = {}  # by id: a capture that is forgotten is not kept; whether it was eager from its start
_stance: Any = None  # torch's handle for putting things back; None while torch's compiler is not loaded


def run_eagerly(capture: object) -> None:
    """Has torch run compiled functions eagerly until `run_as_before`, which is to be called also where this raises."""
    global _stance
    with _lock:
        # The compiler takes seconds to import; where it is not loaded, nothing has been compiled.
        if _stance is None and "torch._dynamo" in sys.modules:
            _stance = _untraced(_force_eager)
        _captures[id(capture)] = _stance is not None


def _untraced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls what the compiler, which is loaded, refuses to trace: a capture may be opened inside compiled code."""
    return torch.compiler.disable(function)(*arguments)  # type: ignore[no-untyped-call]


def _force_eager() -> Any:
    if hasattr(torch.compiler, "set_stance"):  # from torch 2.6 on
        return torch.compiler.set_stance("force_eager")
    stance = _no_frames()
    stance.__enter__()
    return stance


def _end(stance: Any) -> None:
    stance.__exit__(None, None, None)


@contextlib.contextmanager
def _no_frames() -> Iterator[None]:
    """The same for torch 2.4 and 2.5: the function by which compiled code asks for frames to compile asks for none.

    It is none of torch's interface, but these releases will not change it any more.
    """
    eval_frame: Any = importlib.import_module("torch._dynamo.eval_frame")
    name = "_maybe_set_eval_frame" if hasattr(eval_frame, "_maybe_set_eval_frame") else "set_eval_frame"
    own = getattr(eval_frame, name)
    setattr(eval_frame, name, lambda callback: own(None if callable(callback) else callback))
    try:
        yield
    finally:
        setattr(eval_frame, name, own)


def run_as_before(capture: object) -> None:
    """Ends a `run_eagerly`. The last one puts torch's stance back; each warns if the stance came too late for it."""
    global _stance
    with _lock:
        in_time = _captures.pop(id(capture), True)
        if not _captures and _stance is not None:
            _untraced(_end, _stance)  # under the lock: a capture that opens now would keep what it ends
            _stance = None
    if not in_time and _has_compiled():
        warnings.warn(
            "torch.compile was first used inside a nntap.capture block: modules inside compiled code were not "
            "recorded. Compile before the block; captured models run eagerly.",
            RuntimeWarning,
            stacklevel=7,
        )


def _has_compiled() -> bool:
    """Whether torch's compiler has taken code in; parts of torch.func load it and compile nothing."""
    utils = sys.modules.get("torch._dynamo.utils")
    counters = getattr(utils, "counters", None)
    return "torch._dynamo" in sys.modules and (counters is None or bool(counters["frames"]["total"]))
