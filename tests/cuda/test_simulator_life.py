"""A simulation from its start to its end: deadlocks, threads, what is left behind."""

from __future__ import annotations

import threading

import pytest
import torch

from driver_rig import UNKNOWN, Rig, ok, rig
from nntap.testing import simulated, simulator


def test_waiting_for_what_can_never_be_is_an_error_and_a_broken_rule() -> None:
    with rig(pace="never", check=False) as r:
        source, host = r.memory(1), r.host(1)
        side = r.stream()
        with r.sim.held_copies():
            r.to_host(host, source, side)
            event = r.record(side)
            r.wait(0, event)
            assert r.raw.event_synchronize(event) == UNKNOWN
            assert r.raw.stream_synchronize(0) == UNKNOWN
            eager = r.sim.stream()
            assert r.raw.stream_wait_event(eager.handle, event, 0) == UNKNOWN
        found = r.sim.violations()
    assert len(found) == 3
    assert all("deadlock" in text for text in found)


def test_threads_may_share_the_driver() -> None:
    problems: list[BaseException] = []

    def work(r: Rig, seed: int) -> None:
        try:
            mine = Rig(r.sim)
            side = mine.stream()
            for i in range(60):
                source, host = mine.memory(*[(seed * 60 + i) % 100] * 8), mine.host(8)
                mine.to_host(host, source, side)
                event = mine.record(side)
                mine.wait(0, event)
                ok(mine.raw.event_synchronize(event))
                assert torch.equal(host, source)
            for stream in mine.streams:
                ok(mine.raw.stream_synchronize(stream))
            mine.close()
        except BaseException as error:
            problems.append(error)

    for seed in range(3):
        with rig(seed) as r:
            threads = [threading.Thread(target=work, args=(r, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert problems == []


def test_only_one_simulation_runs_at_a_time() -> None:
    with simulated(engine=False):
        with pytest.raises(ValueError, match="one at a time"), simulated(engine=False):
            pass
    with simulated(engine=False):
        pass


def test_a_build_without_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator._core, "build_info", lambda: {"cuda_architectures": []})
    with pytest.raises(RuntimeError, match="nothing to simulate"), simulated():
        pass


def test_after_the_simulation_every_entry_fails_and_the_report_stays() -> None:
    with rig() as r:
        r.to_host(r.host(3), r.memory(1, 2, 3))
    assert r.sim.report().bytes_copied == 3
    assert r.raw.event_create(2) == (4, 0)


def test_handles_of_an_earlier_simulation_are_foreign() -> None:
    with rig(check=False) as old:
        event = old.event()
        old.events.clear()
    with rig(check=False) as r:
        assert r.raw.event_query(event) == 400
        assert "not one of this driver" in r.sim.violations()[0]


def test_the_end_of_a_simulation_reports_broken_rules_and_leaks() -> None:
    def leave_things_behind() -> None:
        with simulated(engine=False) as sim:
            Rig(sim).event()
            sim.raw.event_query(1)

    with pytest.raises(AssertionError, match=r"broken rule: event_query: event 0x1 .*\n(.*\n)*leak: event"):
        leave_things_behind()


def test_an_error_within_a_simulation_is_not_hidden_by_its_leaks() -> None:
    def fail() -> None:
        with simulated(engine=False) as sim:
            Rig(sim).event()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
