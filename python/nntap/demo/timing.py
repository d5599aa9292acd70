"""What recording costs: the same forward bare, under nntap and under nnsight, in turn."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import nntap
from nntap.demo.extras import has
from nntap.demo.progress import Progress
from nntap.demo.subject import Batch, Subject, twin
from nntap.nest import tensors_in

WARM_UPS = 2
MIN_ROUNDS = 5
MAX_ROUNDS = 30
BUDGET_SECONDS = 3.0


@dataclass(frozen=True)
class Timing:
    """The wall times of one way to run the model, in seconds, and the bytes of the tensors it recorded.

    `added` is the median of what this way took more than the bare forward of the same round.
    `quartiles` are those of that difference: it lies between them in half of the rounds.
    """

    name: str
    seconds: float
    added: float
    quartiles: tuple[float, float]
    bytes: int

    @property
    def megabytes_per_second(self) -> float:
        """Bytes recorded a second of the whole run, forward included, in 1e6 bytes."""
        return self.bytes / self.seconds / 1e6


@dataclass(frozen=True)
class Timings:
    """Medians over `rounds`. The first row is the bare forward. `notes`: what was not measured and why."""

    rows: tuple[Timing, ...]
    rounds: int
    warm_ups: int
    threads: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    """One way to run the model. `around` is entered before the clock starts and left after it stops."""

    name: str
    run: Callable[[], Any]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def measure(subject: Subject, batch: Batch, progress: Progress) -> Timings:
    """Run every way in turn, round after round. A record is dropped after its clock has stopped."""
    ways, notes = _ways(subject.model, batch)
    for _ in range(WARM_UPS):
        warm_ups = {way.name: _timed_and_sized(way) for way in ways}
    spent = sum(seconds for seconds, _ in warm_ups.values())
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(BUDGET_SECONDS / spent)))
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in progress.track(range(rounds), "measuring"):
        for way in ways:
            seconds[way.name].append(_timed(way)[0])
    bare = seconds[ways[0].name]
    return Timings(
        rows=tuple(_timing(way.name, seconds[way.name], bare, warm_ups[way.name][1]) for way in ways),
        rounds=rounds,
        warm_ups=WARM_UPS,
        threads=torch.get_num_threads(),
        notes=tuple(notes),
    )


def _timing(name: str, seconds: list[float], bare: list[float], size: int) -> Timing:
    added = [own - other for own, other in zip(seconds, bare, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4, method="inclusive")
    return Timing(name, statistics.median(seconds), middle, (low, high), size)


def recorded_bytes(cache: Any) -> int:
    """The bytes of all outputs in a cache, nntap's or nnsight's. One of several modules counts for each."""
    if cache is None:
        return 0
    return sum(tensor.nbytes for path in cache.keys() for tensor in tensors_in(cache[path].output))  # noqa: SIM118


def _timed(way: _Way) -> tuple[float, Any]:
    with torch.no_grad(), way.around():
        start = time.perf_counter()
        result = way.run()
        return time.perf_counter() - start, result


def _timed_and_sized(way: _Way) -> tuple[float, int]:
    seconds, cache = _timed(way)
    return seconds, recorded_bytes(cache)


def _ways(model: nn.Module, batch: Batch) -> tuple[list[_Way], list[str]]:
    def bare() -> None:
        model(**batch.inputs)

    def stand_alone() -> Any:
        with nntap.capture(model) as cache:
            model(**batch.inputs)
        return cache

    ways = [_Way("bare forward", bare), _Way("nntap.capture", stand_alone)]
    if not has("nnsight"):
        return ways, ['tracer.cache() is not measured: nnsight is not installed (pip install "nntap[nnsight]")']
    try:
        ways += _nnsight_ways(model, batch)
    except ImportError as error:
        return ways, [f"tracer.cache() is not measured: {error}"]
    return ways, []


def _nnsight_ways(model: nn.Module, batch: Batch) -> Iterator[_Way]:
    from nnsight import NNsight

    with nntap.installed():
        pass  # raises for an nnsight that nntap does not know, before anything is measured
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about submodules that are named "output"
        traced = NNsight(twin(model))

    def trace() -> Any:
        with traced.trace(**batch.inputs) as tracer:
            cache = tracer.cache()
        return cache

    yield _Way("tracer.cache() on nntap", trace, nntap.installed)
    yield _Way("tracer.cache() of nnsight", trace)
