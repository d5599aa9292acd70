"""What CUDA forbids, the simulated driver notices: a broken rule is written down, and gives the error CUDA gives."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import pytest
import torch

from driver_rig import INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NO_TIMING, NON_BLOCKING, PORTABLE, Rig, ok, rig
from nntap.testing import simulated


def assert_broken(r: Rig, result: int, expected: int, what: str) -> None:
    assert result == expected
    assert len(r.sim.violations()) == 1
    assert what in r.sim.violations()[0]


# ---- handles ----

Call = Callable[[Rig, int], int]
STREAM_CALLS: dict[str, Call] = {
    "stream_destroy": lambda r, stream: r.raw.stream_destroy(stream),
    "stream_wait_event": lambda r, stream: r.raw.stream_wait_event(stream, r.event(), 0),
    "stream_is_capturing": lambda r, stream: r.raw.stream_is_capturing(stream)[0],
    "stream_synchronize": lambda r, stream: r.raw.stream_synchronize(stream),
    "event_record": lambda r, stream: r.raw.event_record(r.event(), stream),
    "copy_to_host": lambda r, stream: r.raw.copy_to_host(r.host(1).data_ptr(), r.memory(1).data_ptr(), 1, stream),
    "launch": lambda r, stream: r.spin(r.function(), 1, stream),
}
EVENT_CALLS: dict[str, Call] = {
    "stream_wait_event": lambda r, event: r.raw.stream_wait_event(0, event, 0),
    "event_destroy": lambda r, event: r.raw.event_destroy(event),
    "event_record": lambda r, event: r.raw.event_record(event, 0),
    "event_query": lambda r, event: r.raw.event_query(event),
    "event_synchronize": lambda r, event: r.raw.event_synchronize(event),
}


@pytest.mark.parametrize("entry", STREAM_CALLS)
def test_a_destroyed_or_foreign_stream_is_of_no_use(entry: str) -> None:
    for gone in (True, False):
        with rig(check=False) as r:
            stream = r.stream() if gone else 0x1230
            if gone:
                ok(r.raw.stream_destroy(r.streams.pop()))
            what = f"{entry}: stream {stream:#x} " + ("was destroyed" if gone else "is not one of this driver")
            assert_broken(r, STREAM_CALLS[entry](r, stream), INVALID_HANDLE, what)


@pytest.mark.parametrize("entry", EVENT_CALLS)
def test_a_destroyed_or_foreign_event_is_of_no_use(entry: str) -> None:
    for gone in (True, False):
        with rig(check=False) as r:
            event = r.event() if gone else 0x1230
            if gone:
                ok(r.raw.event_destroy(r.events.pop()))
            what = f"{entry}: event {event:#x} " + ("was destroyed" if gone else "is not one of this driver")
            assert_broken(r, EVENT_CALLS[entry](r, event), INVALID_HANDLE, what)


def test_foreign_modules_and_functions_are_of_no_use() -> None:
    with rig(check=False) as r:
        assert r.raw.module_function(0x1230, "nntap_spin") == (INVALID_HANDLE, 0)
        assert r.spin(0x1230, 1) == INVALID_HANDLE
        assert len(r.sim.violations()) == 2


def test_the_models_streams_are_not_to_be_destroyed() -> None:
    with rig(check=False) as r:
        assert r.raw.stream_destroy(0) == INVALID_HANDLE
        assert r.raw.stream_destroy(r.sim.stream().handle) == INVALID_HANDLE
        assert len(r.sim.violations()) == 2


# ---- contexts ----

IN_CONTEXT: dict[str, Callable[[Rig], int]] = {
    "stream_create": lambda r: r.raw.stream_create(NON_BLOCKING)[0],
    "event_create": lambda r: r.raw.event_create(NO_TIMING)[0],
    "host_register": lambda r: r.raw.host_register(r.memory(1).data_ptr(), 1, PORTABLE),
    "module_load": lambda r: r.raw.module_load(r.memory(1).data_ptr())[0],
}


def without_context(r: Rig, call: Callable[[], int]) -> int:
    ok(r.raw.context_pop()[0])
    result = call()
    ok(r.raw.context_push(r.context))
    return result


@pytest.mark.parametrize("entry", IN_CONTEXT)
def test_what_is_made_is_made_in_a_context(entry: str) -> None:
    with rig(check=False) as r:
        result = without_context(r, lambda: IN_CONTEXT[entry](r))
        assert_broken(r, result, INVALID_CONTEXT, f"{entry}: this thread has no current context")


@pytest.mark.parametrize("entry", ["stream_destroy", "stream_is_capturing", "stream_synchronize"])
def test_streams_need_a_context(entry: str) -> None:
    with rig(check=False) as r:
        stream = r.stream()
        result = without_context(r, lambda: STREAM_CALLS[entry](r, stream))
        assert_broken(r, result, INVALID_CONTEXT, f"{entry}: this thread has no current context")


@pytest.mark.parametrize("entry", EVENT_CALLS)
def test_events_need_a_context(entry: str) -> None:
    with rig(check=False) as r:
        event = r.event()
        result = without_context(r, lambda: EVENT_CALLS[entry](r, event))
        assert_broken(r, result, INVALID_CONTEXT, f"{entry}: this thread has no current context")


def test_copies_launches_and_functions_need_a_context() -> None:
    with rig(check=False) as r:
        host, source, function = r.host(1), r.memory(1), r.function()
        module = r.raw.module_load(source.data_ptr())[1]
        calls = [
            lambda: r.raw.copy_to_host(host.data_ptr(), source.data_ptr(), 1, 0),
            lambda: r.spin(function, 1),
            lambda: r.raw.module_function(module, "nntap_spin")[0],
            lambda: r.raw.host_unregister(host.data_ptr()),
        ]
        for n, call in enumerate(calls, 1):
            assert without_context(r, call) == INVALID_CONTEXT
            assert len(r.sim.violations()) == n


def test_each_thread_has_its_own_contexts() -> None:
    results = []
    with rig(check=False) as r:
        thread = threading.Thread(target=lambda: results.append(r.raw.event_create(NO_TIMING)[0]))
        thread.start()
        thread.join()
        assert_broken(r, results[0], INVALID_CONTEXT, "no current context")


def test_contexts_are_popped_as_often_as_pushed() -> None:
    with rig(check=False) as r:
        ok(r.raw.context_pop()[0])
        assert_broken(r, r.raw.context_pop()[0], INVALID_CONTEXT, "context_pop: this thread has pushed no context")
        ok(r.raw.context_push(r.context))
        ok(r.raw.context_push(r.context))
        assert r.sim.leaks().count("context of device 0 on a thread's stack") == 2
        assert r.raw.context_pop() == (0, r.context)


def test_contexts_are_released_as_often_as_retained_and_not_while_pushed() -> None:
    with rig(check=False) as r:
        assert_broken(r, r.raw.primary_context_release(0), INVALID_CONTEXT, "still on a thread's stack")
        assert r.raw.primary_context_retain(0) == (0, r.context)
        ok(r.raw.primary_context_release(0))
    with simulated(engine=False, check=False) as sim:
        assert sim.raw.primary_context_release(0) == INVALID_CONTEXT
        assert "not retained" in sim.violations()[0]


def test_a_released_context_cannot_be_pushed_and_takes_its_modules_with_it() -> None:
    with rig(check=False) as r:
        r.function()
        assert any("module" in text for text in r.sim.leaks())
    with simulated(engine=False, check=False) as sim:
        one = Rig(sim)
        one.function()
        one.close()
        assert sim.leaks() == []
        assert sim.raw.context_push(one.context) == INVALID_CONTEXT
        assert "is not retained" in sim.violations()[0]


@pytest.mark.parametrize("entry", STREAM_CALLS)
def test_a_stream_is_used_in_the_context_of_its_device(entry: str) -> None:
    with simulated(engine=False, devices=2, check=False) as sim:
        first, second = Rig(sim, 0), Rig(sim, 1)
        other = sim.stream(device=0) if entry != "stream_destroy" else None
        ok(sim.raw.context_push(first.context))
        stream = other.handle if other else first.stream()
        ok(sim.raw.context_pop()[0])
        result = STREAM_CALLS[entry](second, stream)
        if entry == "stream_is_capturing":  # asking is allowed
            ok(result)
        else:
            assert_broken(second, result, INVALID_HANDLE, "is of device 0, and the current context of device 1")


def test_events_memory_and_kernels_stay_on_their_device() -> None:
    with simulated(engine=False, devices=2, check=False) as sim:
        first = Rig(sim, 0)
        event, function, source = first.event(), first.function(), first.memory(1)
        second = Rig(sim, 1)
        assert sim.raw.event_record(event, 0) == INVALID_HANDLE
        assert second.spin(function, 1) == INVALID_HANDLE
        assert sim.raw.copy_to_host(second.host(1).data_ptr(), source.data_ptr(), 1, 0) == INVALID_VALUE
        assert len(sim.violations()) == 3


# ---- memory ----


def test_a_copy_goes_to_registered_memory() -> None:
    with rig(check=False) as r:
        source, host = r.memory(1, 2, 3), torch.zeros(3, dtype=torch.uint8)
        result = r.raw.copy_to_host(host.data_ptr(), source.data_ptr(), 3, 0)
        assert_broken(r, result, INVALID_VALUE, "does not lie in one registration")
        assert not host.any()


def test_a_copy_does_not_reach_from_one_registration_into_the_next() -> None:
    with rig(check=False) as r:
        source, host = r.memory(1, 2), torch.zeros(2, dtype=torch.uint8)
        ok(r.raw.host_register(host.data_ptr(), 1, PORTABLE))
        ok(r.raw.host_register(host.data_ptr() + 1, 1, PORTABLE))
        result = r.raw.copy_to_host(host.data_ptr(), source.data_ptr(), 2, 0)
        assert_broken(r, result, INVALID_VALUE, "does not lie in one registration")


def test_registrations_do_not_overlap() -> None:
    with rig(check=False) as r:
        host = r.host(16)
        for offset, count in ((0, 1), (15, 1), (4, 4), (-4, 8), (-4, 40)):
            assert r.raw.host_register(host.data_ptr() + offset, count, PORTABLE) == 712
        assert len(r.sim.violations()) == 5
        assert r.raw.host_register(0, 8, PORTABLE) == INVALID_VALUE
        assert r.raw.host_register(host.data_ptr() + 16, 0, PORTABLE) == INVALID_VALUE


def test_memory_is_unregistered_once_and_where_it_begins() -> None:
    with rig(check=False) as r:
        host = r.host(16)
        assert_broken(r, r.raw.host_unregister(host.data_ptr() + 1), 713, "no registration begins")
        ok(r.raw.host_unregister(r.hosts.pop().data_ptr()))
        assert r.raw.host_unregister(host.data_ptr()) == 713


def test_memory_is_not_unregistered_before_its_copies_have_landed() -> None:
    with rig(check=False, pace="never") as r:
        source, host, other = r.memory(1), r.host(4), r.host(4)
        r.to_host(host[3:], source)
        ok(r.raw.host_unregister(other.data_ptr()))
        r.hosts.pop()
        assert_broken(r, r.raw.host_unregister(host.data_ptr()), INVALID_VALUE, "has not landed yet")
        ok(r.raw.stream_synchronize(0))


def test_memory_registered_for_one_device_is_no_other_ones() -> None:
    with simulated(engine=False, devices=2, check=False) as sim:
        first, second = Rig(sim, 0), Rig(sim, 1)
        ok(sim.raw.context_push(first.context))
        host = torch.zeros(1, dtype=torch.uint8)
        ok(sim.raw.host_register(host.data_ptr(), 1, 0))
        ok(sim.raw.context_pop()[0])
        result = sim.raw.copy_to_host(host.data_ptr(), second.memory(1).data_ptr(), 1, 0)
        assert_broken(second, result, INVALID_VALUE, "registered for device 0 alone")


# ---- the rest ----


def test_the_driver_is_initialised_first() -> None:
    with simulated(engine=False, check=False) as sim:
        assert sim.raw.device_count()[0] == 3
        assert sim.raw.device_get(0)[0] == 3
        assert sim.raw.primary_context_retain(0)[0] == 3
        assert len(sim.violations()) == 3


def test_arguments_that_make_no_sense_are_refused() -> None:
    with rig(check=False) as r:
        function, image = r.function(), r.memory(1).data_ptr()
        word = ctypes.addressof(ctypes.c_longlong(1))
        parameters = ctypes.addressof((ctypes.c_void_p * 1)(word))
        launch = [function, 1, 1, 1, 1, 1, 1, 0, 0, parameters, 0]
        spoilt = [{1: 0}, {3: 0}, {5: 0}, {4: 1025}, {2: 65536}, {7: 1 << 20}, {9: 0}, {10: parameters}]
        results = [
            r.raw.init(1),
            r.raw.device_get(1)[0],
            r.raw.device_attribute(1, 0)[0],
            r.raw.stream_create(0)[0],
            r.raw.event_create(0)[0],
            r.raw.stream_wait_event(0, r.event(), 1),
            r.raw.host_register(image, 1, 2),
            r.raw.copy_to_host(0, image, 1, 0),
            r.raw.module_load(0)[0],
            *[r.raw.launch(*[each.get(i, value) for i, value in enumerate(launch)]) for each in spoilt],
        ]
        assert results == [INVALID_VALUE] * len(results)
        assert len(r.sim.violations()) == len(results)


def test_a_captured_stream_is_left_alone() -> None:
    touching = [entry for entry in STREAM_CALLS if entry not in ("stream_is_capturing", "stream_destroy")]
    with rig(check=False) as r:
        stream, function, host, source = r.sim.stream(), r.function(), r.host(1), r.memory(1)
        calls: dict[str, Call] = STREAM_CALLS | {  # while it lasts nothing is loaded and no memory registered
            "copy_to_host": lambda r, stream: r.raw.copy_to_host(host.data_ptr(), source.data_ptr(), 1, stream),
            "launch": lambda r, stream: r.spin(function, 1, stream),
        }
        r.sim.set_capturing(stream, True)
        assert r.raw.stream_is_capturing(stream.handle) == (0, 1)
        assert r.raw.stream_is_capturing(0) == (0, 0)
        for n, entry in enumerate(touching, 1):
            assert calls[entry](r, stream.handle) == 900
            assert f"{entry}: stream {stream.handle:#x} is being captured" in r.sim.violations()[-1]
            assert len(r.sim.violations()) == n
        r.sim.set_capturing(stream, False)
        ok(r.raw.stream_synchronize(stream.handle))


@pytest.mark.parametrize(
    "entry", ["event_query", "event_synchronize", "host_register", "host_unregister", "module_load"]
)
def test_what_ends_a_capture_is_not_called_while_any_stream_is_captured(entry: str) -> None:
    with rig(check=False) as r:
        event, host, unregistered = r.record(), r.host(1), torch.zeros(1, dtype=torch.uint8)
        calls = {
            "event_query": lambda: r.raw.event_query(event),
            "event_synchronize": lambda: r.raw.event_synchronize(event),
            "host_register": lambda: r.raw.host_register(unregistered.data_ptr(), 1, PORTABLE),
            "host_unregister": lambda: r.raw.host_unregister(host.data_ptr()),
            "module_load": lambda: r.raw.module_load(host.data_ptr())[0],
        }
        stream = r.sim.stream()
        r.sim.set_capturing(stream, True)
        assert_broken(r, calls[entry](), 900, "while a stream is captured")
        r.sim.set_capturing(stream, False)


def test_leaks_are_listed_by_kind() -> None:
    with rig(check=False) as r:
        r.stream(), r.event(), r.host(5), r.function()
        kinds = [text.split()[0] for text in r.sim.leaks()]
        assert kinds == ["stream", "event", "module", "registration", "context", "context"]
        r.sim.stream()
        assert len(r.sim.leaks()) == 6
