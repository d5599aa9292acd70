"""The compiled core, connected to the torch of this process, and the names of it that recording uses."""

from __future__ import annotations

import atexit
import warnings

from nntap.errors import OLDEST_TORCH, CudaError, HostMemoryError, UnsupportedTorchError
from nntap.exchange import provide
from nntap.forks import forked


def _connect() -> None:
    try:
        import torch
    except ImportError as error:
        raise UnsupportedTorchError(
            f"nntap needs torch {OLDEST_TORCH} or later, and importing torch failed ({error}): pip install torch"
        ) from error
    problem = provide(torch)
    if problem is not None:
        warnings.warn(
            f"nntap records by torch's own copies here, right but slower: {problem.found}. Fix it: {problem.fix}",
            RuntimeWarning,
            stacklevel=2,
        )
    _core.connect(torch)


from nntap import _core  # noqa: E402

_core.set_errors(HostMemoryError, CudaError)
if forked:
    _core.lose_torch_threads()
_connect()
atexit.register(_core.stop_cuda)

INPUTS = _core.INPUTS
OUTPUT = _core.OUTPUT
ControllerCall = _core.ControllerCall
Handle = _core.Handle
Hook = _core.Hook
Recorder = _core.Recorder
begin_quiet_run = _core.begin_quiet_run
end_quiet_run = _core.end_quiet_run
module_paths = _core.module_paths


def location_code(path: int, slot: int) -> int:
    """What ``Recorder.record`` takes for a value of that path: its outputs (`OUTPUT`) or its inputs (`INPUTS`)."""
    return 2 * path + slot
