"""How fast this machine copies at all: no contestant can record faster than that."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial

import torch

Curve = list[tuple[int, float]]
"""Sizes of a copy in bytes, ascending, and the most bytes a second that a copy of that size or a larger one reached."""

SIZES = tuple(1 << power for power in range(12, 29, 2))  # 4 KiB to 256 MiB
SECONDS_A_SIZE = 0.04
GIB = 1 << 30


def host_copies(clock: Callable[[], float]) -> Curve:
    """Copies within host memory, source and target touched before."""
    source = torch.zeros(SIZES[-1], dtype=torch.uint8)
    target = torch.zeros(SIZES[-1], dtype=torch.uint8)

    def rate(size: int) -> float:
        ours, theirs = target[:size], source[:size]
        ways = (partial(ctypes.memmove, target.data_ptr(), source.data_ptr(), size), partial(ours.copy_, theirs))
        return max(_best(way, size, clock) for way in ways)

    return falling([(size, rate(size)) for size in SIZES])


def link(clock: Callable[[], float]) -> Curve:
    """From the GPU into pinned host memory, 1 GiB at a time."""
    source = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    return [(0, _best_on_device(source, torch.empty(GIB, dtype=torch.uint8, pin_memory=True), clock))]


def device_copies(clock: Callable[[], float]) -> Curve:
    """Within the GPU's memory, 1 GiB at a time."""
    source = torch.empty(GIB, dtype=torch.uint8, device="cuda")
    return [(0, _best_on_device(source, torch.empty_like(source), clock))]


def least_seconds(sizes: Sequence[int], curve: Curve) -> float:
    """What copying pieces of these sizes takes at the peak."""
    return sum(size / rate_at(size, curve) for size in sizes)


def rate_at(size: int, curve: Curve) -> float:
    """The rate of the largest measured size that is not larger; of the smallest below them all."""
    return next((rate for known, rate in reversed(curve) if known <= size), curve[0][1])


def falling(curve: Sequence[tuple[int, float]]) -> Curve:
    """At each size the most that it or a larger one reached: small copies are slow by what a call costs alone."""
    best: Curve = []
    for size, rate in reversed(curve):
        best.append((size, max(rate, best[-1][1]) if best else rate))
    return best[::-1]


def _best(copy: Callable[[], object], size: int, clock: Callable[[], float]) -> float:
    copy()
    at_once = max(1, int(2e6 / size))
    rates = []
    end = clock() + SECONDS_A_SIZE
    while len(rates) < 3 or clock() < end:
        start = clock()
        for _ in range(at_once):
            copy()
        rates.append(at_once * size / max(clock() - start, 1e-9))
    return max(rates)


def _best_on_device(source: torch.Tensor, target: torch.Tensor, clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(8):
        torch.cuda.synchronize()
        start = clock()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        seconds.append(clock() - start)
    return source.nbytes / min(seconds)
