"""Records that leave little pinned memory to others, so that what comes back is used again at once."""

from __future__ import annotations

import torch

from nntap import _core
from nntap.core import OUTPUT
from nntap.memory import pool_stats, set_limits
from nntap.options import Options
from nntap.testing.simulator import simulated

LEFT = 96 << 10  # bytes


class Ballast:
    """Holds most of one slab of pinned memory, and its limit there, while it is `held`."""

    def __init__(self) -> None:
        self._record: torch.Tensor | None = None
        self._usual: int | None = None

    def hold(self) -> None:
        if self._record is not None:
            return
        pinned = pool_stats()["pinned"]
        self._usual = pinned["limit_bytes"]
        _core.trim_cuda()
        with simulated(pace="always", chunk_bytes=LEFT):
            self._record = _recorded(pool_stats()["slab_bytes"] - LEFT)
            _recorded(LEFT)  # what is left has been used once, and is looked for where memory comes back
        set_limits(pinned_bytes=max(pool_stats()["pinned"]["reserved_bytes"], pool_stats()["slab_bytes"]))

    def drop(self) -> None:
        if self._record is not None:
            self._record = None
            set_limits(pinned_bytes=self._usual)


def _recorded(nbytes: int) -> torch.Tensor:
    recorder = Options.check("cpu", None, True, True, False).recorder(1)
    recorder.record(OUTPUT, torch.empty(nbytes, dtype=torch.uint8))
    record: torch.Tensor = recorder.read(0, 0, OUTPUT)
    return record
