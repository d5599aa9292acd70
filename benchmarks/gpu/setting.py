"""What the cases run on: a device, the sizes, and the link as it was measured."""

from __future__ import annotations

import gc
import math
import mmap
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import torch

import nntap
from benchmarks.timer import Rounds, Timed, Timer

GIB = 1 << 30


def reserve(nbytes: int) -> None:
    """Pinned memory ahead of a run. Where the machine has less, the run shows what records past it cost."""
    with suppress(nntap.HostMemoryError):
        nntap.reserve(nbytes)


@dataclass(frozen=True)
class Sizes:
    """How much is recorded, and how often; `few` is for what takes seconds. `TINY` only shows that the cases run."""

    tensor_bytes: int
    piece_bytes: tuple[int, ...]
    most_pieces: int
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    prefill: tuple[int, int]
    prefill_of_all: tuple[int, int]
    new_tokens: int
    rounds: Rounds
    few: Rounds


FULL = Sizes(
    tensor_bytes=GIB,
    piece_bytes=(4 << 10, 64 << 10, 1 << 20, 8 << 20, 64 << 20),
    most_pieces=1 << 16,
    layers=32,
    hidden=4096,
    heads=32,
    vocabulary=128256,
    prefill=(8, 2048),
    prefill_of_all=(4, 512),
    new_tokens=128,
    rounds=Rounds(budget_seconds=8, least=5, most=15),
    few=Rounds(budget_seconds=15, least=3, most=5, warm_ups=1),
)
TINY = Sizes(
    tensor_bytes=1 << 16,
    piece_bytes=(1 << 10, 1 << 14),
    most_pieces=64,
    layers=2,
    hidden=64,
    heads=4,
    vocabulary=100,
    prefill=(2, 16),
    prefill_of_all=(2, 8),
    new_tokens=4,
    rounds=Rounds(budget_seconds=0.1, least=3, most=5, warm_ups=1),
    few=Rounds(budget_seconds=0.1, least=1, most=3, warm_ups=1),
)


class OutOfTime(Exception):
    """Nothing more may be started."""


def check_time(end: float) -> None:
    if monotonic() >= end:
        raise OutOfTime


@dataclass(frozen=True)
class Setting:
    """`link` is the median of a raw copy of one tensor into pinned memory in this process, in bytes a second.

    `timer` raises `OutOfTime` instead of starting a run after `end`, a time of `monotonic()`.
    """

    device: torch.device
    sizes: Sizes
    timer: Timer
    link: float
    end: float

    @classmethod
    def of(cls, device: torch.device, sizes: Sizes, end: float = math.inf) -> Setting:
        def settle() -> None:
            check_time(end)
            gc.collect()

        link = measure_link(device, sizes, Timer(partial(synchronise, device)))
        return cls(device, sizes, Timer(partial(synchronise, device), settle=settle), link, end)

    def median(self, run: Callable[[], Any]) -> float:
        """Seconds, after warm-ups."""
        return self.medians({"run": run}, self.sizes.rounds)["run"]

    def medians(self, runs: dict[str, Callable[[], Any]], rounds: Rounds) -> dict[str, float]:
        """Seconds of each, round after round in turn."""
        timed = self.timer.measure({name: Timed(run) for name, run in runs.items()}, rounds)
        return {name: statistics.median(seconds) for name, seconds in timed.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_link(device: torch.device, sizes: Sizes, timer: Timer) -> float:
    """Into the faster of both kinds of pinned memory: what CUDA allocates, and what was registered with it."""
    source = torch.empty(sizes.tensor_bytes, dtype=torch.uint8, device=device)
    if device.type != "cuda":
        return _rate(source, torch.empty_like(source), timer)
    allocated = _rate(source, torch.empty(source.shape, dtype=torch.uint8, pin_memory=True), timer)
    with registered(sizes.tensor_bytes) as target:
        return max(allocated, _rate(source, target, timer))


def _rate(source: torch.Tensor, target: torch.Tensor, timer: Timer) -> float:
    copies = timer.measure({"copy": Timed(lambda: target.copy_(source, non_blocking=True))}, Rounds(2, 7, 15))
    return source.nbytes / statistics.median(copies["copy"])


@contextmanager
def registered(nbytes: int) -> Iterator[torch.Tensor]:
    """Memory of the kind that nntap's records lie in: ordinary pages, huge ones if there are any, pinned afterwards."""
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=torch.uint8).fill_(0)
    cudart = torch.cuda.cudart()
    torch.cuda.check_error(cudart.cudaHostRegister(memory.data_ptr(), nbytes, 0))
    try:
        yield memory
    finally:
        torch.cuda.check_error(cudart.cudaHostUnregister(memory.data_ptr()))
