"""Virtual time, on examples that are worked out by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from driver_rig import Rig, ok, rig
from nntap.testing import Copy, Pace, Stream, simulated

COSTS: dict[str, Any] = {
    "call_ns": 10,
    "copy_ns": 100,
    "launch_ns": 50,
    "link_bytes_per_second": 1e9,  # a byte a nanosecond
    "memory_bytes_per_second": 10e9,
}


class Timed(Rig):
    """A rig whose times count from `start()` on."""

    def start(self) -> None:
        self.before = self.sim.report()

    def now(self) -> int:
        return self.sim.report().host_ns - self.before.host_ns

    def blocked(self) -> int:
        return self.sim.report().host_blocked_ns - self.before.host_blocked_ns

    def end(self, stream: int = 0) -> int:
        return self.sim.report().stream_ends[self.device, stream] - self.before.host_ns

    def spans(self) -> list[tuple[int, int]]:
        start = self.before.host_ns
        return [(copy.begin_ns - start, copy.end_ns - start) for copy in self.sim.report().copies]


@contextmanager
def timed(pace: Pace = "any", **options: Any) -> Iterator[Timed]:
    with simulated(engine=False, lazy=True, pace=pace, **COSTS, **options) as sim:
        one = Timed(sim)
        yield one
        one.close()


def test_each_call_costs_the_host_the_same() -> None:
    with timed() as r:
        event = r.event()
        r.start()
        for _ in range(5):
            r.raw.event_query(event)
        assert r.now() == 50
        r.sim.spend(7)
        assert r.now() == 57
        assert r.blocked() == 0


@pytest.mark.parametrize("pace", ["never", "always", "trickle", "fits", "timed"])
def test_a_wait_of_the_host_lasts_until_the_copy_is_over(pace: Pace) -> None:
    with timed(pace) as r:
        source, host, event = r.memory(*range(200)), r.host(200), r.event()
        r.start()
        r.to_host(host, source)  # called at 10: from 10 to 10 + 100 + 200
        ok(r.raw.event_record(event, 0))
        assert r.now() == 20
        ok(r.raw.event_synchronize(event))  # called at 30
        assert r.now() == 310
        assert r.blocked() == 280
        ok(r.raw.event_synchronize(event))
        assert (r.now(), r.blocked()) == (320, 280)
        assert r.sim.report().copies == [Copy(200, 0, 10 + r.before.host_ns, 310 + r.before.host_ns)]


def test_operations_of_one_stream_follow_each_other() -> None:
    with timed() as r:
        source, host = r.memory(*range(200)), r.host(200)
        r.start()
        r.sim.delay(1000)  # enqueued at 0
        r.sim.write(source, source.clone())  # 50 + 200 / 10
        assert r.end() == 1070
        r.to_host(host, source)
        assert r.end() == 1370
        ok(r.raw.stream_synchronize(0))
        assert (r.now(), r.blocked()) == (1370, 1370 - 20)


def test_streams_run_beside_each_other_until_one_waits() -> None:
    with timed() as r:
        source, host, side, event = r.memory(1), r.host(1), r.stream(), r.event()
        r.start()
        r.sim.delay(1000)
        ok(r.raw.event_record(event, 0))  # over at 1000
        r.to_host(host, source, side)  # called at 20: until 121
        assert r.end(side) == 121
        ok(r.raw.stream_wait_event(side, event, 0))
        assert r.end(side) == 1000
        r.to_host(host, source, side)
        assert r.spans() == [(20, 121), (1000, 1101)]
        r.sim.delay(500)
        assert r.end() == 1500


def test_a_wait_is_for_the_time_of_the_record_before_it() -> None:
    with timed() as r:
        side, event = r.stream(), r.event()
        r.start()
        r.sim.delay(1000)
        ok(r.raw.event_record(event, 0))
        ok(r.raw.stream_wait_event(side, event, 0))
        r.sim.delay(1000)
        ok(r.raw.event_record(event, 0))
        assert r.end(side) == 1000
        ok(r.raw.event_synchronize(event))
        assert r.now() == 2000


def test_a_device_copies_one_thing_at_a_time_whichever_is_ready_first() -> None:
    with timed() as r:
        source, host = r.memory(*range(100)), r.host(100)
        first, second, third = r.stream(), r.stream(), r.stream()
        r.start()
        r.to_host(host, source, first)  # 10 to 210
        r.to_host(host, source, second)  # ready at 20, the engine is free at 210
        r.sim.delay(1000, Stream(third, 0))
        r.to_host(host, source, third)  # ready at 1020
        r.to_host(host[:50], source[:50], first)  # in the gap before it
        assert r.spans() == [(10, 210), (210, 410), (1020, 1220), (410, 560)]


def test_devices_copy_beside_each_other() -> None:
    with simulated(engine=False, lazy=True, devices=2, **COSTS) as sim:
        rigs = [Timed(sim, device) for device in range(2)]
        for r in reversed(rigs):
            source, host = r.memory(*range(100)), r.host(100)
            ok(r.raw.context_push(r.context))
            r.start()
            r.to_host(host, source)
            ok(r.raw.context_pop()[0])
        assert rigs[1].spans()[0] == (10, 210)
        assert rigs[0].spans()[1] == (10, 210)
        for r in reversed(rigs):
            r.close()


def test_a_kernel_costs_its_launch_and_the_bytes_it_touches() -> None:
    with timed() as r:
        spin = r.function("nntap_spin")
        r.start()
        ok(r.spin(spin, 3000))
        assert r.end() == 10 + 50 + 3000
        assert r.sim.report().launches == 1


def test_eager_streams_take_their_virtual_time_too() -> None:
    with timed() as r:
        eager, event = r.sim.stream(), r.event()
        r.start()
        r.sim.delay(1000, eager)
        ok(r.raw.event_record(event, eager.handle))
        ok(r.raw.event_synchronize(event))
        assert (r.now(), r.blocked()) == (1000, 980)


def test_in_timed_pace_an_event_is_over_when_its_time_has_come() -> None:
    with timed("timed") as r:
        eager, event = r.sim.stream(), r.event()
        r.start()
        r.sim.delay(95, eager)
        ok(r.raw.event_record(event, eager.handle))
        assert [r.raw.event_query(event) for _ in range(10)] == [600] * 8 + [0] * 2


def test_each_thread_has_its_own_time() -> None:
    with timed("never") as r:
        source, host, event = r.memory(1), r.host(1), r.event()
        r.start()
        r.sim.delay(5000)
        r.to_host(host, source)
        ok(r.raw.event_record(event, 0))
        before = r.now()

        def wait() -> None:
            other = Rig(r.sim)
            ok(other.raw.event_synchronize(event))
            other.close()

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        assert r.now() == before
        assert r.blocked() == 0
        assert r.sim.report().all_blocked_ns == 5101 - before - 4 * 10


def test_the_report_counts_what_was_done() -> None:
    with rig(pace="never", call_ns=1) as r:
        source, host = r.memory(1, 2, 3), r.host(3)
        for event in [r.event() for _ in range(3)]:
            ok(r.raw.event_destroy(event))
        r.events.clear()
        r.to_host(host, source)
        r.to_host(host[:1], source[:1])
        report = r.sim.report()
    assert report.bytes_copied == 4
    assert [copy.bytes for copy in report.copies] == [3, 1]
    assert (report.events, report.events_peak) == (0, 3)
    assert report.calls["event_create"] == 3
    assert report.calls["launch"] == 0
    assert sum(report.calls.values()) == report.host_ns
    assert (report.registered_bytes, report.registered_peak_bytes) == (3, 3)
    assert report.pending == 2
    assert r.sim.report().pending == 0
    assert r.sim.report().registered_bytes == 0
