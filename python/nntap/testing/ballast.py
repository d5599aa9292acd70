"""Records that leave little pinned memory to others, so that what comes back is used again at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nntap import _core
from nntap.core import OUTPUT, location_code
from nntap.memory import pool_stats, set_limits
from nntap.options import Options
from nntap.testing.simulator import simulated

LEFT = 96 << 10  # bytes
SPARE = 16 << 10


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
        slab = pool_stats()["slab_bytes"]
        set_limits(pinned_bytes=pool_stats()["pinned"]["reserved_bytes"] + slab)  # for both of the following
        with simulated(pace="always", chunk_bytes=LEFT):
            self._record = _recorded(slab - LEFT)
            _recorded(LEFT)  # what is left has been used once, and is looked for where memory comes back

    def drop(self) -> None:
        if self._record is not None:
            self._record = None
            set_limits(pinned_bytes=self._usual)


@contextmanager
def tight_host(left: int, wait_seconds: float) -> Iterator[list[torch.Tensor]]:
    """Within it, records find little room in ordinary host memory: what finds none stalls, and then fails.

    Yields records that whoever wants to end a stall may drop.

    Args:
        left: Bytes of it.
        wait_seconds: How long a stall may last.
    """
    usual = pool_stats()
    _core.trim()
    # One slab more and not two, so that small records share it with the large one.
    set_limits(host_bytes=pool_stats()["reserved_bytes"] + usual["slab_bytes"], wait_seconds=wait_seconds)
    held: list[torch.Tensor] = []
    spare: list[torch.Tensor] = []
    try:
        held.append(_recorded(usual["slab_bytes"] - 8 * SPARE - left))
        spare.extend(_recorded(SPARE) for _ in range(8))
        yield spare
    finally:
        spare.clear()
        set_limits(host_bytes=usual["limit_bytes"], wait_seconds=usual["wait_seconds"])


def _recorded(nbytes: int) -> torch.Tensor:
    recorder = Options.check("cpu", None, True, True, False).recorder(1)
    recorder.record(location_code(0, OUTPUT), torch.empty(nbytes, dtype=torch.uint8))
    record: torch.Tensor = recorder.read(0, 0, OUTPUT)
    return record
