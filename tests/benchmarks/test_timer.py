"""The timer's arithmetic, with a clock that only moves when it is told to."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest
from benchmarks.timer import Rounds, Spread, Timed, Timer, added, ratio_of_added


class Clock:
    """Seconds, and a device whose work is only done when it is waited for."""

    def __init__(self):
        self.now = 0.0
        self.queued = 0.0
        self.runs = []

    def __call__(self):
        return self.now

    def synchronise(self):
        self.now += self.queued
        self.queued = 0.0

    def settle(self):
        self.now += 1000.0

    def thing(self, name, seconds, queued=0.0):
        def run():
            self.runs.append(name)
            self.now += seconds
            self.queued += queued

        return Timed(run)

    def timer(self, seed=0):
        return Timer(self.synchronise, self, self.settle, seed)


@pytest.fixture
def clock():
    return Clock()


def test_the_clock_stops_after_the_device_is_done(clock):
    assert clock.timer().once(clock.thing("a", 2.0, queued=5.0)) == 7.0


def test_what_the_device_still_does_from_before_is_not_counted(clock):
    clock.queued = 100.0
    assert clock.timer().once(clock.thing("a", 2.0)) == 2.0


def test_what_surrounds_a_run_is_not_counted(clock):
    @contextmanager
    def around():
        clock.now += 50.0
        yield
        clock.now += 50.0

    timed = Timed(clock.thing("a", 2.0).run, around)
    assert clock.timer().once(timed) == 2.0


def test_what_a_run_made_is_dropped_after_the_clock_has_stopped(clock):
    class Made:
        def __del__(self):
            clock.now += 30.0

    assert clock.timer().once(Timed(Made)) == 0.0
    assert clock.now == 1000.0 + 30.0


def test_warm_ups_run_but_are_not_counted(clock):
    seconds = clock.timer().measure({"a": clock.thing("a", 1.0)}, Rounds(3.0, least=1, warm_ups=4))
    assert seconds == {"a": [1.0, 1.0, 1.0]}
    assert len(clock.runs) == 4 + 3


def test_a_brief_run_is_timed_right_after_another_of_its_kind(clock):
    things = {"long": clock.thing("long", 1.0), "brief": clock.thing("brief", 0.01)}
    seconds = clock.timer().measure(things, Rounds(0.0, least=3, warm_ups=1))
    assert {name: len(values) for name, values in seconds.items()} == {"long": 3, "brief": 3}
    assert seconds["brief"] == pytest.approx([0.01] * 3)
    assert Counter(clock.runs) == {"long": 1 + 3, "brief": 1 + 2 * 3}


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [(0.0, 5), (60.0, 20), (1e9, 50)],
    ids=["at least", "as the budget allows", "at most"],
)
def test_the_rounds_are_those_the_budget_allows(clock, budget, rounds):
    things = {"a": clock.thing("a", 1.0), "b": clock.thing("b", 2.0)}
    seconds = clock.timer().measure(things, Rounds(budget, least=5, most=50))
    assert {name: len(values) for name, values in seconds.items()} == {"a": rounds, "b": rounds}


def test_every_round_runs_everything_once_in_an_order_of_its_own(clock):
    names = ["a", "b", "c"]
    clock.timer().measure({name: clock.thing(name, 1.0) for name in names}, Rounds(90.0, warm_ups=1))
    rounds = [tuple(clock.runs[i : i + 3]) for i in range(3, len(clock.runs), 3)]
    assert len(rounds) == 30
    assert all(sorted(order) == names for order in rounds)
    assert len(Counter(rounds)) > 3


def test_another_seed_is_another_order(clock):
    things = {name: clock.thing(name, 1.0) for name in "abc"}
    orders = []
    for seed in (0, 1):
        clock.runs.clear()
        clock.timer(seed).measure(things, Rounds(30.0))
        orders.append(list(clock.runs))
    assert orders[0] != orders[1]


def test_progress_is_told_each_round_and_the_end(clock):
    told = []
    clock.timer().measure({"a": clock.thing("a", 1.0)}, Rounds(2.0, least=1), lambda *at: told.append(at))
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_spread_is_a_median_and_its_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert Spread.of([5.0]) == Spread(5.0, 5.0, 5.0)


def test_added_time_is_taken_within_each_round():
    bare = [10.0, 20.0, 30.0]  # the machine slows down; what is added stays the same
    assert added([11.0, 21.0, 31.0], bare) == Spread(1.0, 1.0, 1.0)


def test_a_ratio_is_that_of_the_medians_and_its_spread_surrounds_it():
    bare = [10.0] * 9
    own = [10.0 + 0.1 * i for i in range(9)]
    other = [12.0] * 9
    ratio = ratio_of_added(own, other, bare)
    assert ratio.median == pytest.approx(0.4 / 2.0)
    assert ratio.low < ratio.median < ratio.high


def test_there_is_no_ratio_to_what_cannot_be_told_from_nothing():
    bare = [10.0, 10.0, 10.0, 10.0]
    assert ratio_of_added([11.0] * 4, [9.0, 9.5, 11.0, 12.0], bare) is None


def test_there_is_no_spread_over_unequal_numbers_of_rounds():
    with pytest.raises(ValueError, match="zip"):
        added([1.0, 2.0], [1.0])
