"""What the cases run on: a device, the sizes, and the link as it was measured."""

from __future__ import annotations

import gc
import math
import mmap
import statistics
import time
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


MOST_WARM_UPS = 6
GROWING_SECONDS = 0.2
"""Pinned memory that has not grown for so long has stopped growing ahead of need."""


def reserve(nbytes: int) -> None:
    """Pinned memory ahead of a run. Where the machine has less, the run shows what records past it cost."""
    with suppress(nntap.HostMemoryError):
        nntap.reserve(nbytes)


def warm(run: Callable[[], Any]) -> None:
    """Runs until the pinned memory that it takes is there: what comes after it is the steady state."""
    before = -1
    for _ in range(MOST_WARM_UPS):
        run()
        gc.collect()
        now = _pinned_bytes_at_rest()
        if now == before:
            return
        before = now


def _pinned_bytes_at_rest() -> int:
    before, now = -1, nntap.pool_stats()["pinned"]["reserved_bytes"]
    while now != before:
        time.sleep(GROWING_SECONDS)
        before, now = now, nntap.pool_stats()["pinned"]["reserved_bytes"]
    return int(now)


class Counted:
    """A run that notes the bytes of the tensors that it first gave back, each storage once."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self.nbytes = 0

    def __call__(self) -> Any:
        made = self._run()
        self.nbytes = self.nbytes or bytes_in(made)
        return made


def bytes_in(kept: Any) -> int:
    """Of all storages in the outputs by path, or in those of a cache."""
    outputs = [getattr(kept[path], "output", kept[path]) for path in kept.keys()]  # noqa: SIM118  (a cache has keys)
    storages = {
        leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes()
        for leaf in torch.utils._pytree.tree_leaves(outputs)
        if isinstance(leaf, torch.Tensor)
    }
    return sum(storages.values())


@dataclass(frozen=True)
class Sizes:
    """How much is recorded, and how often; `few` is for what takes seconds, `steps` for a generation, of which a few
    hundredths are to be told. `TINY` only shows that the cases run."""

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
    steps: Rounds


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
    steps=Rounds(budget_seconds=30, least=7, most=9, warm_ups=1),
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
    steps=Rounds(budget_seconds=0.1, least=1, most=3, warm_ups=1),
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

    def samples(self, run: Callable[[], Any]) -> list[float]:
        """The seconds of each run, after warm-ups."""
        warm(run)
        return self.in_turn({"run": run}, self.sizes.rounds)["run"]

    def in_turn(self, runs: dict[str, Callable[[], Any]], rounds: Rounds) -> dict[str, list[float]]:
        """The seconds of each run of each, round after round; entries of one index are of one round."""
        return self.timer.measure({name: Timed(run) for name, run in runs.items()}, rounds)

    def link_now(self) -> float:
        """The link measured once more, in bytes a second: whether the machine is what it was at the start."""
        return measure_link(self.device, self.sizes, Timer(partial(synchronise, self.device)))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_link(device: torch.device, sizes: Sizes, timer: Timer) -> float:
    """Into the faster of both kinds of pinned memory: what CUDA allocates, and what was registered with it, if it can
    be."""
    source = torch.empty(sizes.tensor_bytes, dtype=torch.uint8, device=device)
    if device.type != "cuda":
        return _rate(source, torch.empty_like(source), timer)
    allocated = _rate(source, torch.empty(source.shape, dtype=torch.uint8, pin_memory=True), timer)
    with suppress(RuntimeError), registered(sizes.tensor_bytes) as target:  # torch.AcceleratorError is one
        return max(allocated, _rate(source, target, timer))
    return allocated


def _rate(source: torch.Tensor, target: torch.Tensor, timer: Timer) -> float:
    copies = timer.measure({"copy": Timed(lambda: target.copy_(source, non_blocking=True))}, Rounds(2, 7, 15))
    return source.nbytes / statistics.median(copies["copy"])


@contextmanager
def registered(nbytes: int, ready: Callable[[], object] = lambda: None) -> Iterator[torch.Tensor]:
    """Memory of the kind that nntap's records lie in: ordinary pages, huge ones if there are any, pinned afterwards.

    `ready` is called in between.
    """
    pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=torch.uint8).fill_(0)
    cudart = torch.cuda.cudart()
    ready()
    torch.cuda.check_error(cudart.cudaHostRegister(memory.data_ptr(), nbytes, 0))
    try:
        yield memory
    finally:
        torch.cuda.check_error(cudart.cudaHostUnregister(memory.data_ptr()))
