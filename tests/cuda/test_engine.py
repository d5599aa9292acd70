"""The CUDA engine on the simulated driver: what it costs the model, what it takes, and what it refuses."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import nntap
from helpers import Give, run_script
from nntap.testing import Simulator, simulated

KIB = 1 << 10
MIB = 1 << 20


def giving(value: Any) -> Give:
    return Give(lambda: value)


def record(values: list[Any], **options: Any) -> Any:
    """The cache of modules that give these back, one after the other."""
    model = nn.ModuleList(giving(value) for value in values)
    with nntap.capture(model, **options) as cache:
        for module in model:
            module()
    return cache


# ---- cost ----


def test_small_records_share_one_copy() -> None:
    with simulated(pace="never") as sim:
        cache = record([torch.full((37,), float(n)) for n in range(50)])
        assert [float(cache[str(n)].output[0]) for n in range(50)] == list(range(50))
        assert len(sim.report().copies) == 1


def test_bytes_cross_once_and_are_cast_before() -> None:
    with simulated() as sim:
        tensor = torch.randn(256)
        cache = record([tensor, tensor, (tensor, None)], dtype=torch.float16)
        assert cache["0"].output is cache["1"].output is cache["2"].output[0]
        assert sim.report().bytes_copied == cache.stats.bytes_moved == 512
        assert (cache.stats.records, cache.stats.shared) == (3, 2)


def test_an_edit_between_two_modules_ends_the_sharing() -> None:
    with simulated():
        tensor = torch.zeros(8)
        model = nn.ModuleList([giving(tensor), giving(tensor)])
        with nntap.capture(model) as cache:
            model[0]()
            tensor.add_(1)
            model[1]()
        assert (float(cache["0"].output.sum()), float(cache["1"].output.sum())) == (0, 8)


def test_inference_tensors_are_never_shared() -> None:
    with simulated(), torch.inference_mode():
        tensor = torch.ones(8)
        cache = record([tensor, tensor])
        assert cache.stats.shared == 0


def test_the_model_is_never_blocked_by_the_host_when_chunks_run_out() -> None:
    chunk = 64 * KIB
    with simulated(pace="timed", lazy=True, chunk_bytes=chunk, device_bytes=2 * chunk) as sim:
        values = [sim.empty(16 * KIB, torch.float32) for _ in range(40)]
        for number, value in enumerate(values):
            sim.write(value, torch.full((16 * KIB,), float(number)))
        cache = record(values)
        seen = sim.report()
        assert seen.host_blocked_ns == 0
        stats = nntap.pool_stats()["devices"][0]
        assert stats["gpu_waits"] > 0
        assert stats["peak_device_bytes"] <= 2 * chunk
        assert [float(cache[str(n)].output[-1]) for n in range(40)] == list(range(40))


def test_copies_run_beside_the_models_own_work() -> None:
    work_ns, nbytes = 1_000_000, 64 * KIB

    def end_of_compute(recording: bool) -> int:
        with simulated(pace="timed", lazy=True, chunk_bytes=nbytes, launch_ns=100, call_ns=10) as sim:
            model = nn.ModuleList(giving(sim.empty(nbytes // 4, torch.float32)) for _ in range(8))
            chosen = None if recording else "0"
            with nntap.capture(model, modules=chosen) as cache:
                for module in model:
                    sim.delay(work_ns)
                    module()
            cache["0"].output.sum()
            return sim.report().stream_ends[0, 0]

    assert end_of_compute(True) - end_of_compute(False) < work_ns // 10


# ---- memory ----


def test_a_record_larger_than_all_chunks_is_pieced() -> None:
    with simulated(chunk_bytes=4 * KIB, device_bytes=8 * KIB) as sim:
        tensor = torch.arange(100_001)
        assert torch.equal(record([tensor])["0"].output, tensor)
        assert max(copy.bytes for copy in sim.report().copies) <= 4 * KIB


def test_where_the_device_has_less_room_chunks_are_smaller_and_where_it_has_none_torch_records() -> None:
    tensor = torch.randn(64)
    with simulated(chunk_bytes=8 * MIB) as sim:
        sim.set_room(MIB)
        cache = record([tensor])
        assert torch.equal(cache["0"].output, tensor)
        assert nntap.pool_stats()["devices"][0]["device_bytes"] <= MIB
        assert cache.stats.slow == {}
    with simulated(chunk_bytes=8 * MIB) as sim:
        sim.set_room(0)
        cache = record([tensor])
        assert torch.equal(cache["0"].output, tensor)
        assert cache.stats.slow == {"no device memory left": 1}


def test_no_copy_crosses_from_one_registration_into_the_next() -> None:
    values = [torch.full((17 * MIB // 4 + 3,), float(n)) for n in range(4)]
    with simulated():  # which notes it, as the driver refuses it
        nntap.reserve(600 * MIB)
        caches = [record([*values, torch.ones(1000)]) for _ in range(8)]
        for cache in caches:
            assert [float(cache[str(n)].output[-1]) for n in range(4)] == [0, 1, 2, 3]


def test_a_small_device_limit_holds_for_the_first_chunk_too() -> None:
    before = nntap.pool_stats()["device_limit_bytes"]
    with simulated(chunk_bytes=16 * MIB, device_bytes=2 * MIB):
        cache = record([torch.arange(MIB, dtype=torch.float32)])
        assert torch.equal(cache["0"].output, torch.arange(MIB, dtype=torch.float32))
        assert nntap.pool_stats()["devices"][0]["peak_device_bytes"] <= 2 * MIB
    assert nntap.pool_stats()["device_limit_bytes"] == before


def test_a_device_limit_that_is_set_later_holds_and_may_be_raised_again() -> None:
    tensors = [torch.full((MIB,), float(n)) for n in range(24)]

    def most_of_a_burst(sim: Simulator, limit: int) -> int:
        """The device memory held after all of it was on its way at once."""
        nntap.set_limits(device_bytes=limit)
        cache = record(tensors)
        assert [float(cache[str(n)].output[-1]) for n in range(24)] == list(range(24))
        held = nntap.pool_stats()["devices"][0]["device_bytes"]
        assert sim.report().memory[0].used == held
        return held

    with simulated(pace="never", chunk_bytes=8 * MIB, device_bytes=64 * MIB) as sim:
        assert most_of_a_burst(sim, 64 * MIB) == 64 * MIB
        assert most_of_a_burst(sim, 20 * MIB) == 16 * MIB
        assert most_of_a_burst(sim, 3 * MIB) == 3 * MIB, "smaller chunks, where one would be too large"
        assert most_of_a_burst(sim, 64 * MIB) == 64 * MIB
        assert nntap.pool_stats()["devices"][0]["chunk_bytes"] == 8 * MIB


def test_what_takes_the_chunks_away_while_a_value_is_recorded_costs_no_record() -> None:
    before = nntap.pool_stats()["device_limit_bytes"]

    class Trimming(torch.Tensor):
        """Changes what chunks may be while torch records it."""

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nntap.trim()
            nntap.set_limits(device_bytes=MIB)
            return super().__torch_function__(func, types, args, kwargs or {})

    try:
        with simulated(pace="always", chunk_bytes=4 * MIB) as sim:
            tensor = sim.empty(8, torch.float32).fill_(3)
            model = Give(lambda: [tensor, torch.ones(1).as_subclass(Trimming)])
            with nntap.capture(model) as cache:
                model()
            assert cache[""].output[0].tolist() == [3.0] * 8
            del cache
    finally:
        nntap.set_limits(device_bytes=before)


def test_a_full_device_is_not_asked_for_room_at_every_record() -> None:
    tensor = torch.randn(64)
    with simulated(chunk_bytes=8 * MIB) as sim:
        sim.set_room(0)
        cache = record([tensor] * 50)
        assert cache.stats.slow == {"no device memory left": 50}
        assert sim.report().memory[0].refused <= 3


def test_where_the_driver_does_not_say_what_is_free_the_first_chunks_do() -> None:
    chunk = 4 * KIB
    with simulated(pace="never", chunk_bytes=chunk, device_bytes=64 * chunk) as sim:
        sim.fail("memory_info")
        cache = record([torch.full((KIB,), float(n)) for n in range(20)])
        assert [float(cache[str(n)].output[0]) for n in range(20)] == list(range(20))
        assert sim.report().calls["memory_info"] == 1
        assert nntap.pool_stats()["devices"][0]["peak_device_bytes"] == 4 * chunk


def test_one_call_of_trim_gives_all_back_that_is_on_its_way() -> None:
    with simulated(pace="never", chunk_bytes=4 * KIB) as sim:
        cache = record([torch.ones(2 * KIB)])
        del cache
        gc.collect()
        nntap.trim()
        assert nntap.pool_stats()["pinned"]["reserved_bytes"] == sim.report().registered_bytes == 0


def test_a_nearly_full_device_is_left_to_the_model() -> None:
    chunk = 4 * KIB
    with simulated(pace="never", chunk_bytes=chunk, device_bytes=64 * chunk, free_bytes=8 * chunk):
        cache = record([torch.full((KIB,), float(n)) for n in range(20)])
        assert nntap.pool_stats()["devices"][0]["peak_device_bytes"] == 4 * chunk
        assert float(cache["19"].output[0]) == 19


def test_past_pinned_memory_records_pass_through_staging() -> None:
    with simulated(pinned=False, chunk_bytes=4 * KIB):
        values = [torch.randn(n) for n in (1, 100, 1000, 5000)]
        cache = record(values)
        for number, value in enumerate(values):
            assert torch.equal(cache[str(number)].output, value)


def test_records_stay_on_the_device_where_that_is_asked_for() -> None:
    with simulated() as sim:
        tensor = torch.randn(4, 6).t()
        copy = record([tensor], device=None)["0"].output
        assert torch.equal(copy, tensor)
        assert copy.stride() == tensor.stride()
        assert copy.data_ptr() != tensor.data_ptr()
        assert sim.report().copies == []


def test_memory_comes_back() -> None:
    def in_use() -> tuple[int, int]:
        gc.collect()
        stats = nntap.pool_stats()
        return stats["pinned"]["reserved_bytes"], stats["used_bytes"]

    with simulated(chunk_bytes=4 * KIB) as sim:
        tensor = torch.randn(3000)
        for run in range(2000):
            record([tensor])["0"].output.sum()
            if run == 3:
                third, events = in_use(), sim.report().events
        assert in_use() == third
        assert sim.report().events <= events + 4


def test_memory_that_the_device_may_still_be_at_is_not_reserved_twice() -> None:
    nntap.trim()
    with simulated(pace="never") as sim:
        record([torch.ones(15 * MIB)])
        gc.collect()
        before = sim.report().registered_bytes
        nntap.reserve(60 * MIB)
        assert sim.report().registered_bytes == before


def test_where_the_driver_pins_no_more_records_pass_through_staging() -> None:
    nntap.trim()
    with simulated(chunk_bytes=2 * MIB) as sim:
        record([torch.ones(4)])
        asked = sim.report().calls["host_register"]
        sim.fail("host_register", 1, 801)
        values = [torch.full((MIB,), float(n)) for n in range(20)]
        cache = record(values)
        assert [float(cache[str(n)].output[-1]) for n in range(20)] == list(range(20))
        assert cache.stats.slow == {}
        assert sim.report().calls["host_register"] == asked + 1, "a refusal is remembered"
        del cache
        gc.collect()
        nntap.reserve(64 * MIB)
        assert nntap.pool_stats()["pinned"]["reserved_bytes"] >= 64 * MIB, "and forgotten when somebody asks"


def test_where_the_driver_refuses_one_large_record_smaller_ones_are_pinned() -> None:
    nntap.trim()
    with simulated(chunk_bytes=2 * MIB) as sim:
        record([torch.ones(4)])
        before = nntap.pool_stats()["pinned"]["reserved_bytes"]
        sim.fail("host_register")
        large = record([torch.ones(16 * MIB)])
        assert nntap.pool_stats()["pinned"]["reserved_bytes"] == before
        cache = record([torch.full((MIB,), float(n)) for n in range(20)])
        assert float(large["0"].output.sum()) == 16 * MIB
        assert [float(cache[str(n)].output[-1]) for n in range(20)] == list(range(20))
        assert nntap.pool_stats()["pinned"]["reserved_bytes"] >= 80 * MIB


def test_where_the_driver_pins_a_page_but_no_slab_torch_records() -> None:
    nntap.trim()
    with simulated(check=False) as sim:
        sim.fail("host_register", 2, 2)
        cache = record([torch.ones(4)])
        assert float(cache["0"].output.sum()) == 4
        assert cache.stats.slow == {"no pinned memory to be had": 1}


def test_chunks_that_had_to_be_small_grow_when_the_device_has_room() -> None:
    with simulated(chunk_bytes=8 * MIB) as sim:
        sim.set_room(MIB)
        record([torch.ones(4)])
        assert nntap.pool_stats()["devices"][0]["chunk_bytes"] <= MIB
        sim.set_room(64 * MIB)
        time.sleep(1.05)  # it is tried once a second
        cache = record([torch.ones(4)])
        assert float(cache["0"].output.sum()) == 4
        assert nntap.pool_stats()["devices"][0]["chunk_bytes"] == 8 * MIB


def test_a_record_of_very_many_pieces_needs_no_deep_stack() -> None:
    found: list[float] = []
    with simulated(chunk_bytes=KIB, device_bytes=4 * KIB):
        cache = record([torch.arange(2 * MIB, dtype=torch.float32)])

        def read() -> None:
            found.append(float(cache["0"].output[-1]))

        before = threading.stack_size(256 * KIB)
        try:
            reader = threading.Thread(target=read)
            reader.start()
            reader.join()
        finally:
            threading.stack_size(before)
    assert found == [2 * MIB - 1]


def test_a_tensor_without_elements_leaves_nothing_behind() -> None:
    with simulated():
        before = nntap.pool_stats()["used_bytes"]
        assert record([torch.empty(0, 3)])["0"].output.shape == (0, 3)
        gc.collect()
        assert nntap.pool_stats()["used_bytes"] == before


def test_reserve_takes_pinned_memory_ahead_of_the_first_record() -> None:
    nntap.trim()
    with simulated() as sim:
        nntap.reserve(100 * MIB)
        registered = sim.report().registered_bytes
        assert registered >= 100 * MIB
        assert float(record([torch.ones(4)])["0"].output.sum()) == 4
        assert sim.report().registered_bytes == registered
        gc.collect()
        assert nntap.trim() >= 100 * MIB
        assert sim.report().registered_bytes == 0
    with pytest.raises(ValueError, match="nbytes=-1"):
        nntap.reserve(-1)
    with pytest.raises(TypeError, match="whole number"):
        nntap.reserve(1.5)  # type: ignore[arg-type]


# ---- what is refused, and what is left alone ----


def test_a_stream_that_is_captured_into_a_graph_is_refused_and_left_alone() -> None:
    with simulated() as sim:
        record([torch.ones(4)])
        sim.set_capturing(sim.default_stream(), True)
        before = sim.report()
        with pytest.raises(nntap.CudaError, match="CUDA graph is being captured"):
            record([torch.ones(4)])
        after = sim.report()
        sim.set_capturing(sim.default_stream(), False)
        assert (before.launches, before.calls["event_record"]) == (after.launches, after.calls["event_record"])


def test_the_first_record_on_a_device_is_refused_before_anything_is_made_for_it() -> None:
    with simulated() as sim:
        sim.set_capturing(sim.default_stream(), True)
        with pytest.raises(nntap.CudaError, match="CUDA graph is being captured"):
            record([torch.ones(4)])
        assert sim.report().calls["module_load"] == 0
        sim.set_capturing(sim.default_stream(), False)
        assert float(record([torch.ones(4)])["0"].output.sum()) == 4


def test_a_capture_on_another_stream_is_left_alone() -> None:
    with simulated(pace="never", chunk_bytes=4 * KIB) as sim:  # which notes each call that would end it
        record([torch.ones(KIB)])
        captured = sim.stream()
        with captured:
            early = record([torch.ones(KIB)])
        gc.collect()
        used = nntap.pool_stats()["pinned"]["used_bytes"]
        sim.set_capturing(captured, True)
        caches = [record([torch.full((KIB,), float(n))]) for n in range(4)]
        assert [float(cache["0"].output[0]) for cache in caches] == [0, 1, 2, 3]
        assert float(early["0"].output.sum()) == KIB
        del caches, early
        nntap.reserve(80 * MIB)
        assert nntap.pool_stats()["pinned"]["used_bytes"] > used, "a stream that cannot be asked may still use it"
        sim.set_capturing(captured, False)
        nntap.trim()
        assert nntap.pool_stats()["pinned"]["used_bytes"] == 0


def test_a_chunk_whose_stream_is_captured_meanwhile_waits_for_the_end_of_the_capture() -> None:
    with simulated(pace="never") as sim:  # which notes each call that would become a part of the graph
        stream = sim.stream()
        model = giving(torch.arange(8.0))
        with nntap.capture(model) as cache:
            with stream:
                model()
            sim.set_capturing(stream, True)
        with pytest.raises(nntap.CudaError, match="Read it when the capture has ended"):
            cache[""].output.sum()
        sim.set_capturing(stream, False)
        assert cache[""].output.tolist() == list(range(8))


def test_where_nothing_can_be_pinned_torch_records() -> None:
    with simulated(check=False) as sim:
        nntap.trim()
        sim.fail("host_register", 1, 801)
        cache = record([torch.ones(4), torch.zeros(4)])
        assert float(cache["0"].output.sum()) == 4
        assert cache.stats.slow == {"no pinned memory to be had": 2}


def test_a_driver_that_is_too_old_is_named() -> None:
    with pytest.raises(nntap.CudaError, match=r"CUDA 11\.8.*525, or later"), simulated(driver_version=11080):
        pass


def test_on_a_gpu_older_than_every_kernel_torch_records() -> None:
    with simulated(compute_capability=(5, 2)):
        cache = record([torch.ones(4), torch.zeros(4)])
        assert float(cache["0"].output.sum()) == 4
        assert cache.stats.slow == {"no kernel for this GPU": 2}
        assert nntap.build_info()["cuda"]["devices"][0]["kernel"] == "none"


@pytest.mark.parametrize("result", [209, 218, 221, 222, 223])
def test_where_the_driver_takes_no_kernel_torch_records(result: int) -> None:
    with simulated(check=False) as sim:
        sim.fail("module_load", 1, result)
        sim.fail("module_load", 2, result)
        cache = record([torch.ones(4), torch.zeros(4)])
        assert float(cache["0"].output.sum()) == 4
        assert cache.stats.slow == {"no kernel for this GPU": 2}
        assert sim.report().calls["module_load"] <= 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_the_reason_is_said() -> None:
    cuda = nntap.build_info()["cuda"]
    assert "libcuda.so.1" in cuda["problem"] or cuda["installed"]


FORKS = """
import os, torch, nntap
from helpers import Give
from nntap.testing import Simulator, simulated
with simulated(pace="never", check=False):
    model = Give(lambda: torch.ones(4))
    with nntap.capture(model) as landed: model()
    landed[""].output
    with nntap.capture(model) as waiting: model()
    child = os.fork()
    if child == 0:
        assert float(landed[""].output.sum()) == 4
        for act in (lambda: waiting[""].output, lambda: [nntap.capture(model).__enter__(), model()]):
            try:
                act()
            except nntap.CudaError as error:
                assert "forked" in str(error), error
            else:
                os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert float(waiting[""].output.sum()) == 4
print("done")
"""

# The staging threads are not in the child, and its exit runs what ends the engine.
ENDS_AS_USUAL = """
import os, sys, torch, nntap
from helpers import Give
from nntap.testing import simulator
simulation = simulator.simulated(check=False)
simulation.__enter__()
nntap.set_limits(pinned_bytes=32 << 20)
model, caches = Give(lambda: torch.ones(1 << 20)), []
for _ in range(20):
    with nntap.capture(model) as cache: model()
    caches.append(cache)
child = os.fork()
if child == 0:
    with nntap.capture(torch.nn.Identity()): pass
    nntap.trim()
    assert nntap.pool_stats()["devices"] == []
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert nntap.pool_stats()["devices"] != []
print("done")
"""

# A thread's stack finds no room: whoever needs one is told, nobody waits for ever, and the next run is clean.
NO_THREADS = """
import resource, torch, nntap
from helpers import Give
from nntap import _core
from nntap.testing import Simulator, simulated

def address_space():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def told(act):
    try:
        act()
    except nntap.CudaError as error:
        return "no thread to be had" in str(error)
    return False

model = Give(lambda: torch.ones(1 << 16))
with simulated(chunk_bytes=1 << 18, pinned=False):
    nntap.reserve(0)
    _core.reserve_host(32 << 20)
    with nntap.capture(model, device=None): model()
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + (4 << 20), resource.RLIM_INFINITY))
    with nntap.capture(model) as cache:
        model()
        assert told(model)  # the first chunk is full, and cannot be copied
    try:
        assert told(lambda: cache[""][0].output) and told(lambda: cache[""][0].output)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with nntap.capture(model) as cache: model()
    assert float(cache[""].output.sum()) == 1 << 16
print("done")
"""

LEAVES = """
import torch, nntap
from helpers import Give
from nntap.testing import simulator
simulation = simulator.simulated(pace="never", check=False)
simulation.__enter__()
model = Give(lambda: torch.ones(1 << 16))
with nntap.capture(model) as cache: model()
print("done")
"""


@pytest.mark.parametrize(
    "script",
    [FORKS, ENDS_AS_USUAL, LEAVES, NO_THREADS],
    ids=["fork", "exit of a fork", "exit with copies under way", "no threads to be had"],
)
def test_processes_fork_and_end(script: str) -> None:
    run = run_script(script)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr  # newer Pythons warn of a fork beside threads


# ---- modes of torch ----


class Seen(TorchDispatchMode):
    """Notes every operation of its thread."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", ["cpu", None])
def test_dispatch_modes_do_not_see_the_memory_that_records_need(device: str | None) -> None:
    """They run Python, and the lane's mutex is held."""
    with simulated():
        tensor = torch.ones(1 << 10)
        with Seen() as seen:
            cache = record([tensor], device=device)
        assert seen.operations == []
        assert torch.equal(cache["0"].output, tensor)
        assert cache.stats.slow == {}
