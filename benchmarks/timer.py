"""The one timer: everything in turn, round after round, and the clock stops only when the device is done."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

RESAMPLES = 400

CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
"""Process time leaves out what other processes took, and is that of all threads: for one thread on a busy machine."""


BRIEF_SECONDS = 0.02
"""A run that takes less is timed right after an untimed one of the same kind, as in a loop. It would otherwise mostly
pay for what other things left in the processor's caches, and nothing that anybody does alternates like this."""


@dataclass(frozen=True)
class Timed:
    """One thing to time. `around` is entered before the clock starts and left after it has stopped."""

    run: Callable[[], Any]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles about it, in seconds unless it is a ratio."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Rounds:
    """How often everything is measured: as often as `budget_seconds` allow, within the bounds."""

    budget_seconds: float
    least: int = 5
    most: int = 101
    warm_ups: int = 2

    def count(self, seconds_a_round: float) -> int:
        return max(self.least, min(self.most, int(self.budget_seconds / max(seconds_a_round, 1e-9))))


class Timer:
    """Times things that take from a millisecond to some seconds.

    Args:
        synchronise: Returns when the device has done everything it was given; called before the clock starts and
            again before it stops.
        clock: Seconds, monotonic.
        settle: Called before each run, off the clock, after what the run before it made was dropped.
        seed: Of the order within the rounds.
    """

    def __init__(
        self,
        synchronise: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        settle: Callable[[], object] = gc.collect,
        seed: int = 0,
    ) -> None:
        self._synchronise = synchronise
        self._clock = clock
        self._settle = settle
        self._shuffle = random.Random(seed).shuffle

    def once(self, timed: Timed, again: bool = False) -> float:
        """Seconds of one run, or, `again`, of the second of two. What it gives back is dropped after the clock has
        stopped."""
        self._settle()
        with timed.around():
            if again:
                timed.run()
            self._synchronise()
            start = self._clock()
            made = timed.run()
            self._synchronise()
            seconds = self._clock() - start
        del made
        return seconds

    def measure(
        self,
        things: Mapping[str, Timed],
        rounds: Rounds,
        progress: Callable[[int, int], object] = lambda done, of: None,
    ) -> dict[str, list[float]]:
        """Seconds of every run of each thing, after warm-ups; entries of one index are of one round.

        The order within a round is drawn anew, so that no thing always follows the same other one.
        """
        with _frozen_garbage():
            for _ in range(rounds.warm_ups):
                once = {name: self.once(timed) for name, timed in things.items()}
            brief = {name for name, spent in once.items() if spent < BRIEF_SECONDS}
            count = rounds.count(sum(spent * (2 if name in brief else 1) for name, spent in once.items()))
            seconds: dict[str, list[float]] = {name: [] for name in things}
            names = list(things)
            for done in range(count):
                progress(done, count)
                self._shuffle(names)
                for name in names:
                    seconds[name].append(self.once(things[name], again=name in brief))
        progress(count, count)
        return seconds


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    # The collections between runs then look at what the runs made, and not at every object of every library.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def added(own: Sequence[float], bare: Sequence[float]) -> Spread:
    """What a thing took more than the bare one in the same round."""
    return Spread.of(_differences(own, bare))


def ratio_of_added(own: Sequence[float], other: Sequence[float], bare: Sequence[float]) -> Spread | None:
    """The median of what `own` adds over the median of what `other` adds, with quartiles by resampling the rounds.

    None where `other` adds nothing that can be told from zero.
    """
    own_added, other_added = _differences(own, bare), _differences(other, bare)
    if Spread.of(other_added).low <= 0:
        return None
    draw = random.Random(0)
    resampled = []
    for _ in range(RESAMPLES):
        picks = draw.choices(range(len(bare)), k=len(bare))
        below = statistics.median(other_added[i] for i in picks)
        if below > 0:
            resampled.append(statistics.median(own_added[i] for i in picks) / below)
    middle = statistics.median(own_added) / statistics.median(other_added)
    spread = Spread.of(resampled)
    return Spread(middle, spread.low, spread.high)


def _differences(own: Sequence[float], bare: Sequence[float]) -> list[float]:
    return [mine - floor for mine, floor in zip(own, bare, strict=True)]
