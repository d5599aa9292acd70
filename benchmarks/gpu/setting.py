"""What the cases run on: a device, the sizes, and the link as it was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.timer import Rounds, Timed, Timer

GIB = 1 << 30


@dataclass(frozen=True)
class Sizes:
    """How much is recorded. `TINY` only shows that the cases run."""

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
)


@dataclass(frozen=True)
class Setting:
    """`link` is the median of a raw copy of one pinned tensor to the host in this process, in bytes a second."""

    device: torch.device
    sizes: Sizes
    timer: Timer
    link: float

    @classmethod
    def of(cls, device: torch.device, sizes: Sizes) -> Setting:
        timer = Timer(lambda: synchronise(device))
        return cls(device, sizes, timer, measure_link(device, sizes, timer))

    def median(self, run: Callable[[], Any]) -> float:
        """Seconds, after warm-ups."""
        return statistics.median(self.timer.measure({"run": Timed(run)}, self.sizes.rounds)["run"])

    def medians(self, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Seconds of each, round after round in turn."""
        timed = self.timer.measure({name: Timed(run) for name, run in runs.items()}, self.sizes.rounds)
        return {name: statistics.median(seconds) for name, seconds in timed.items()}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_link(device: torch.device, sizes: Sizes, timer: Timer) -> float:
    source = torch.empty(sizes.tensor_bytes, dtype=torch.uint8, device=device)
    target = torch.empty(sizes.tensor_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    copies = timer.measure({"copy": Timed(lambda: target.copy_(source, non_blocking=True))}, Rounds(2, 7, 15))
    return sizes.tensor_bytes / statistics.median(copies["copy"])
