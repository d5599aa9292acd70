"""The simulated driver itself: what CUDA promises it keeps, and what CUDA leaves open it varies."""

from __future__ import annotations

import ctypes
import threading

import pytest
import torch

from driver_rig import NOT_READY, SUCCESS, Rig, ok, rig
from nntap import _core
from nntap.testing import Pace, simulated

PACES: list[Pace] = ["never", "always", "trickle", "fits", "timed"]
SEEDS = range(40)


def values(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


# ---- streams ----


@pytest.mark.parametrize("pace", PACES)
def test_a_stream_runs_its_operations_in_order(pace: Pace) -> None:
    for seed in SEEDS:
        with rig(seed, pace=pace) as r:
            source, first, second = r.memory(0), r.host(1), r.host(1)
            for value, host in ((1, first), (2, second)):
                r.sim.write(source, values(value))
                r.to_host(host, source)
            ok(r.raw.stream_synchronize(0))
            assert (first.item(), second.item()) == (1, 2)


def test_streams_do_not_wait_for_each_other() -> None:
    seen = set()
    for seed in SEEDS:
        with rig(seed) as r:
            source, host = r.memory(1), r.host(1)
            side = r.stream()
            r.sim.write(source, values(2))
            r.to_host(host, source, side)
            ok(r.raw.stream_synchronize(side))
            seen.add(host.item())
    assert seen == {1, 2}


def test_a_lazy_stream_does_nothing_until_somebody_waits() -> None:
    with rig(pace="never") as r:
        source = r.memory(1)
        r.sim.write(source, values(2))
        assert source.item() == 1
        ok(r.raw.stream_synchronize(0))
        assert source.item() == 2


def test_an_eager_stream_runs_at_once_all_that_it_depends_on_and_nothing_else() -> None:
    with rig(pace="never") as r:
        needed, other = r.memory(1), r.memory(1)
        side, third, eager = r.stream(), r.stream(), r.sim.stream()
        host, late = r.host(1), r.host(1)
        r.to_host(host, needed, side)
        r.to_host(late, other, third)
        r.wait(eager.handle, r.record(side))
        assert host.item() == 1
        assert late.item() > 0xA0


def test_what_is_in_a_stream_still_runs_after_it_is_destroyed() -> None:
    with rig(pace="never") as r:
        source, host = r.memory(7), r.host(1)
        side = r.stream()
        r.to_host(host, source, side)
        event = r.record(side)
        ok(r.raw.stream_destroy(r.streams.pop()))
        ok(r.raw.event_synchronize(event))
        assert host.item() == 7


def test_the_current_stream_is_each_threads_own_and_nests() -> None:
    with simulated(devices=2, engine=False) as sim:
        outer, inner, other = sim.stream(), sim.stream(), sim.stream(device=1)
        seen = []
        with outer, other, inner:
            assert sim.current_stream().handle == inner.handle
            assert sim.current_stream(1).handle == other.handle
            thread = threading.Thread(target=lambda: seen.append(sim.current_stream().handle))
            thread.start()
            thread.join()
        assert seen == [0]
        assert sim.current_stream().handle == 0


# ---- events ----


def test_a_wait_is_for_the_record_before_it_not_for_a_later_one() -> None:
    with rig(pace="never") as r:
        source, host = r.memory(1), r.host(1)
        side, third = r.stream(), r.stream()
        event = r.record(side)
        r.wait(third, event)
        r.to_host(host, source, side)
        ok(r.raw.event_record(event, side))
        ok(r.raw.stream_synchronize(third))
        assert r.raw.event_query(event) == NOT_READY
        assert host.item() != 1


def test_a_wait_for_an_event_that_was_never_recorded_is_none() -> None:
    with rig(pace="never") as r:
        event = r.event()
        assert r.raw.event_query(event) == SUCCESS
        r.wait(0, event)
        ok(r.raw.event_record(event, r.stream()))
        ok(r.raw.stream_synchronize(0))
        assert r.raw.event_query(event) == NOT_READY


def test_an_event_answers_for_its_latest_record() -> None:
    with rig(pace="never") as r:
        source = r.memory(1)
        event = r.record()
        ok(r.raw.event_synchronize(event))
        assert r.raw.event_query(event) == SUCCESS
        r.sim.write(source, values(2))
        ok(r.raw.event_record(event, 0))
        assert r.raw.event_query(event) == NOT_READY
        ok(r.raw.event_synchronize(event))
        assert source.item() == 2


def test_an_event_may_be_destroyed_while_it_is_awaited() -> None:
    with rig(pace="never") as r:
        source, host = r.memory(1), r.host(1)
        side = r.stream()
        r.sim.write(source, values(2))
        r.wait(side, r.record())
        ok(r.raw.event_destroy(r.events.pop()))
        r.to_host(host, source, side)
        ok(r.raw.stream_synchronize(side))
        assert host.item() == 2


def test_an_event_of_another_device_can_be_waited_for() -> None:
    with simulated(devices=2, engine=False, lazy=True, pace="never") as sim:
        first = Rig(sim, 0)
        source = first.memory(1)
        sim.write(source, values(2), sim.default_stream(0))
        event = first.record()
        second = Rig(sim, 1)
        second.wait(0, event)
        ok(second.raw.stream_synchronize(0))
        assert source.item() == 2
        second.close()
        first.close()


# ---- copies ----


@pytest.mark.parametrize("pace", PACES)
def test_no_byte_of_the_destination_is_right_before_it_lands_and_all_are_after(pace: Pace) -> None:
    for seed in SEEDS:
        with rig(seed, pace=pace) as r:
            source = r.memory(*range(1, 33))
            host = r.host(32)
            side = r.stream()
            r.to_host(host, source, side)
            landed = host == source
            assert (host[~landed] == host[~landed][:1]).all()
            assert (host[~landed] > 0xA0).all()
            ok(r.raw.stream_synchronize(side))
            assert torch.equal(host, source)


def test_each_copy_has_a_poison_of_its_own() -> None:
    with rig(pace="never") as r:
        source, first, second = r.memory(1), r.host(1), r.host(1)
        r.to_host(first, source)
        r.to_host(second, source)
        assert first.item() != second.item()


def test_a_copy_lands_in_pieces_in_any_order() -> None:
    first_to_land = set()
    for seed in SEEDS:
        with rig(seed, pace="never") as r:
            source, host = r.memory(*range(1, 65)), r.host(64)
            r.to_host(host, source)
            r.sim.step()
            landed = host == source
            first_to_land.add((bool(landed[0]), bool(landed[-1])))
    whole, begin, end, middle = (True, True), (True, False), (False, True), (False, False)
    assert first_to_land == {whole, begin, end, middle}


def test_a_copy_reads_its_source_when_it_lands() -> None:
    with rig(pace="never") as r:
        source, host = r.memory(1), r.host(1)
        r.to_host(host, source)
        source.fill_(2)
        ok(r.raw.stream_synchronize(0))
        assert host.item() == 2


def test_held_copies_do_not_land() -> None:
    with rig(pace="always") as r:
        source, host = r.memory(1), r.host(1)
        with r.sim.held_copies():
            r.to_host(host, source)
            assert r.raw.event_query(r.record()) == NOT_READY
            with pytest.raises(RuntimeError, match="copies are held"):
                r.sim.drain()
        ok(r.raw.stream_synchronize(0))
        assert host.item() == 1


# ---- the schedule ----


def trace(seed: int, pace: Pace = "any") -> list[object]:
    """What a host sees that only polls."""
    seen: list[object] = []
    with rig(seed, pace=pace) as r:
        sources = [r.memory(*[i + 1] * 16) for i in range(3)]
        hosts = [r.host(16) for _ in sources]
        sides = [r.stream() for _ in sources]
        events = []
        for source, host, side in zip(sources, hosts, sides, strict=True):
            r.to_host(host, source, side)
            events.append(r.record(side))
        for _ in range(20):
            seen += [r.raw.event_query(event) for event in events]
            seen += [host.tolist() for host in hosts]
    return seen


def test_one_seed_gives_one_schedule() -> None:
    for seed in SEEDS:
        assert trace(seed) == trace(seed)


def test_seeds_give_different_schedules() -> None:
    assert len({str(trace(seed)) for seed in SEEDS}) > len(SEEDS) // 4
    assert len({str(trace(seed, "trickle")) for seed in SEEDS}) > len(SEEDS) * 3 // 4


def test_the_paces_are_what_they_say() -> None:
    def polls(pace: Pace) -> list[int]:
        with rig(3, pace=pace, call_ns=10, copy_ns=100, link_bytes_per_second=1e9) as r:
            r.to_host(r.host(30), r.memory(*range(30)))
            event = r.record()
            return [r.raw.event_query(event) for _ in range(30)]

    assert polls("never") == [NOT_READY] * 30
    assert polls("always") == [SUCCESS] * 30
    assert polls("timed") == [NOT_READY] * 10 + [SUCCESS] * 20  # 130 ns after the copy, the 13th call


# ---- kernels ----


def test_a_launch_copies_its_parameters_and_runs_when_its_stream_comes_to_it() -> None:
    with rig(pace="never") as r:
        gather = r.function("nntap_gather_cast")
        source, out = r.memory(*range(16)), r.memory(*[0] * 64)
        aligned = out[-out.data_ptr() % 16 :][:16]
        byte = (1, 8)  # as DLPack has it
        jobs = [(source.data_ptr(), (16,), (1,), byte, aligned.data_ptr(), byte, 0, 16)]
        batch, blocks = _core.testing.gather_parameters(jobs, True)
        memory = ctypes.create_string_buffer(batch, len(batch))
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(memory))
        ok(r.raw.launch(gather, blocks, 1, 1, 256, 1, 1, 0, 0, ctypes.addressof(parameters), 0))
        ctypes.memset(ctypes.addressof(memory), 0, len(batch))
        r.sim.write(source, torch.zeros_like(source))
        assert not out.any()
        ok(r.raw.stream_synchronize(0))
        assert aligned.tolist() == list(range(16))
        assert out.sum() == sum(range(16))


def test_a_kernel_nobody_knows_is_not_found() -> None:
    with rig() as r:
        module = r.raw.module_load(ctypes.addressof(ctypes.create_string_buffer(1)))[1]
        assert r.raw.module_function(module, "nntap_gather") == (500, 0)


# ---- devices ----


def test_the_devices_are_what_was_asked_for() -> None:
    with simulated(devices=3, compute_capability=(8, 6), driver_version=12000, engine=False) as sim:
        ok(sim.raw.init(0))
        assert sim.raw.device_count() == (SUCCESS, 3)
        assert sim.raw.device_get(2) == (SUCCESS, 2)
        assert sim.raw.device_attribute(75, 2) == (SUCCESS, 8)
        assert sim.raw.device_attribute(76, 2) == (SUCCESS, 6)
        assert sim.raw.driver_version() == (SUCCESS, 12000)
        name = ctypes.create_string_buffer(12)
        ok(sim.raw.device_name(ctypes.addressof(name), 12, 2))
        assert name.value == b"simulated d"


def test_a_machine_may_have_no_device() -> None:
    with simulated(devices=0, engine=False) as sim:
        assert sim.raw.init(0) == 100


def test_memory_is_the_first_devices_unless_it_was_placed() -> None:
    with simulated(devices=2, engine=False) as sim:
        tensor, other = torch.zeros(4), torch.zeros(4)
        sim.place(tensor[2:], 1)
        assert sim.device_of(tensor) == 1
        assert sim.device_of(tensor[3:]) == 1
        assert sim.device_of(other) == 0


def test_an_error_has_the_drivers_name() -> None:
    with simulated(engine=False) as sim:
        assert sim.raw.error_name(700) == (SUCCESS, "CUDA_ERROR_ILLEGAL_ADDRESS")
        assert sim.raw.error_name(12345) == (1, None)
