"""Calls that are made to fail do nothing and give what they were told to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from driver_rig import NO_TIMING, NON_BLOCKING, PORTABLE, Rig, ok, rig
from nntap.testing import ENTRIES, simulated

FAILED = 719
TEXT = ctypes.create_string_buffer(64)
AT = ctypes.addressof(TEXT)
WITHOUT_DEVICE = [
    "init",
    "driver_version",
    "error_name",
    "device_count",
    "device_get",
    "device_name",
    "device_attribute",
    "primary_context_release",
    "exchange_capture_mode",
    "context_push",
    "context_pop",
]


def one_call_of_each(r: Rig) -> dict[str, Callable[[], int]]:
    """A right call of every entry, each with handles and memory of its own."""
    stream, event, unregistered = r.stream(), r.event(), torch.zeros(8, dtype=torch.uint8)
    gone_stream, gone_event, gone_host = r.stream(), r.event(), r.host(8)
    function, source, host = r.function(), r.memory(1), r.host(1)
    module = r.raw.module_load(AT)[1]
    ok(r.raw.primary_context_retain(0)[0])
    ok(r.raw.context_push(r.context))
    return {
        "init": lambda: r.raw.init(0),
        "driver_version": lambda: r.raw.driver_version()[0],
        "error_name": lambda: r.raw.error_name(0)[0],
        "device_count": lambda: r.raw.device_count()[0],
        "device_get": lambda: r.raw.device_get(0)[0],
        "device_name": lambda: r.raw.device_name(AT, 64, 0),
        "device_attribute": lambda: r.raw.device_attribute(75, 0)[0],
        "primary_context_retain": lambda: r.raw.primary_context_retain(0)[0],
        "primary_context_release": lambda: r.raw.primary_context_release(0),
        "context_push": lambda: r.raw.context_push(r.context),
        "context_pop": lambda: r.raw.context_pop()[0],
        "memory_info": lambda: r.raw.memory_info()[0],
        "stream_create": lambda: r.raw.stream_create(NON_BLOCKING)[0],
        "stream_destroy": lambda: r.raw.stream_destroy(gone_stream),
        "stream_wait_event": lambda: r.raw.stream_wait_event(stream, event, 0),
        "stream_is_capturing": lambda: r.raw.stream_is_capturing(stream)[0],
        "exchange_capture_mode": lambda: r.raw.exchange_capture_mode()[0],
        "stream_synchronize": lambda: r.raw.stream_synchronize(stream),
        "event_create": lambda: r.raw.event_create(NO_TIMING)[0],
        "event_destroy": lambda: r.raw.event_destroy(gone_event),
        "event_record": lambda: r.raw.event_record(event, stream),
        "event_query": lambda: r.raw.event_query(event),
        "event_synchronize": lambda: r.raw.event_synchronize(event),
        "copy_to_host": lambda: r.raw.copy_to_host(host.data_ptr(), source.data_ptr(), 1, stream),
        "host_register": lambda: r.raw.host_register(unregistered.data_ptr(), 8, PORTABLE),
        "host_unregister": lambda: r.raw.host_unregister(gone_host.data_ptr()),
        "module_load": lambda: r.raw.module_load(AT)[0],
        "module_function": lambda: r.raw.module_function(module, "nntap_spin")[0],
        "launch": lambda: r.spin(function, 1),
    }


def state(r: Rig) -> dict[str, Any]:
    """What a call that does nothing leaves as it is."""
    seen = asdict(r.sim.report())
    for moves_on in ("calls", "host_ns"):
        del seen[moves_on]
    return seen


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_nth_call_of_an_entry_fails_and_no_other(entry: str) -> None:
    with rig(check=False, pace="never") as r:
        first, second, third = (one_call_of_each(r)[entry] for _ in range(3))
        r.sim.fail(entry, 2, FAILED)
        ok(first())
        before = state(r)
        assert second() == FAILED
        assert state(r) == before
        ok(third())
        assert r.sim.violations() == []
        assert r.sim.report().calls[entry] >= 3
        r.sim.drain()
        forget(r)


def forget(r: Rig) -> None:
    """Lets the rig's end give nothing back: the simulation's end does."""
    r.streams.clear(), r.events.clear(), r.hosts.clear()


@pytest.mark.parametrize("result", [2, 100, 600, 700, 999])
def test_a_call_fails_with_any_result(result: int) -> None:
    with rig() as r:
        event = r.event()
        r.sim.fail("event_query", 1, result)
        assert r.raw.event_query(event) == result
        ok(r.raw.event_query(event))


def test_several_failures_can_be_planned() -> None:
    with rig() as r:
        event = r.event()
        r.sim.fail("event_query", 2, 700)
        r.sim.fail("event_query", 3, 719)
        assert [r.raw.event_query(event) for _ in range(4)] == [0, 700, 719, 0]


def test_what_a_failed_call_should_have_given_back_is_no_leak() -> None:
    with simulated(engine=False) as sim:
        r = Rig(sim)
        stream, event, host = r.stream(), r.event(), r.host(1)
        for entry in ("stream_destroy", "event_destroy", "host_unregister", "context_pop", "primary_context_release"):
            sim.fail(entry)
        assert len(sim.leaks()) == 5
        assert r.raw.stream_destroy(stream) == 999
        assert r.raw.event_destroy(event) == 999
        assert r.raw.host_unregister(host.data_ptr()) == 999
        assert r.raw.context_pop()[0] == 999
        assert r.raw.primary_context_release(0) == 999
        assert sim.leaks() == []


def test_it_may_be_given_back_in_a_second_try() -> None:
    with simulated(engine=False) as sim:
        r = Rig(sim)
        for entry in ("event_destroy", "context_pop", "primary_context_release"):
            sim.fail(entry)
        event = r.event()
        assert r.raw.event_destroy(event) == 999
        ok(r.raw.event_destroy(event))
        assert r.raw.context_pop()[0] == 999
        ok(r.raw.context_pop()[0])
        assert r.raw.primary_context_release(0) == 999
        ok(r.raw.primary_context_release(0))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_lost_device_is_lost_for_every_call_that_needs_it(entry: str) -> None:
    with simulated(engine=False, check=False, lazy=True) as sim:
        r = Rig(sim)
        call = one_call_of_each(r)[entry]
        event = r.event()
        sim.fail_all_after("event_query", 2)
        ok(r.raw.event_query(event))
        assert r.raw.event_query(event) == 700
        assert call() == (0 if entry in WITHOUT_DEVICE else 700)
        assert sim.violations() == []


@pytest.mark.parametrize("pace", ["never", "trickle", "timed"])
def test_what_was_under_way_on_a_lost_device_never_lands(pace: Any) -> None:
    with simulated(engine=False, check=False, lazy=True, pace=pace) as sim:
        r = Rig(sim)
        source, host = r.memory(1), r.host(1)
        r.sim.delay(10**9)
        r.to_host(host, source)
        event = r.record()
        sim.fail_all_after("event_synchronize")
        before = host.item()
        assert r.raw.event_synchronize(event) == 700
        sim.drain()
        assert host.item() == before
        assert sim.report().pending == 0


def test_only_entries_of_the_table_can_fail_and_only_calls_to_come() -> None:
    with simulated(engine=False) as sim:
        with pytest.raises(ValueError, match="no entry 'event_wait'"):
            sim.fail("event_wait")
        with pytest.raises(ValueError, match="nth=0"):
            sim.fail("event_query", 0)
        with pytest.raises(AttributeError, match="no entry 'event_wait'"):
            _ = sim.raw.event_wait


def test_the_calls_above_are_of_every_entry() -> None:
    with rig(check=False) as r:
        assert tuple(one_call_of_each(r)) == ENTRIES
        forget(r)
