"""Host memory: what the pool holds, under a limit too, and that it comes back."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nntap
from helpers import Give, assert_script_runs, assert_storage_is_exact, record
from host_memory import MIB, SLAB, filled, recorded
from nntap import _core
from nntap.testing import simulated

# ---- what the pool holds ----


def test_records_take_pool_memory_and_give_it_back() -> None:
    gc.collect()
    before = nntap.pool_stats()["used_bytes"]
    cache = recorded(3)
    assert nntap.pool_stats()["used_bytes"] == before + 3 * MIB
    assert nntap.pool_stats()["peak_bytes"] >= before + 3 * MIB
    tensor = cache[""].output
    del cache
    assert nntap.pool_stats()["used_bytes"] == before + 3 * MIB  # the tensor still views it
    del tensor
    assert nntap.pool_stats()["used_bytes"] == before


def test_memory_is_used_again_and_not_reserved_anew() -> None:
    recorded(20)
    reserved, touched = (nntap.pool_stats()[name] for name in ("reserved_bytes", "touched_bytes"))
    for _ in range(20):
        recorded(20)
    assert nntap.pool_stats()["reserved_bytes"] == reserved
    assert nntap.pool_stats()["touched_bytes"] == touched


def test_trim_gives_back_what_no_record_lives_in(limited: int) -> None:
    nntap.set_limits(host_bytes=None)
    kept, dropped = recorded(20, 7.0), recorded(20)
    two = nntap.pool_stats()["reserved_bytes"]
    assert nntap.trim() == 0
    del dropped
    freed = nntap.trim()
    assert freed == two - nntap.pool_stats()["reserved_bytes"] >= 20 * MIB
    assert (kept[""].output == 7).all()
    del kept
    nntap.trim()
    stats = nntap.pool_stats()
    assert [stats[name] for name in ("slabs", "reserved_bytes", "touched_bytes", "used_bytes")] == [0, 0, 0, 0]


def test_a_record_larger_than_a_slab_is_whole() -> None:
    cache = recorded(SLAB // MIB + 5, 3.0)
    assert (cache[""].output == 3).all()
    assert_storage_is_exact(cache[""].output)


def test_blocks_of_many_sizes_that_come_and_go_never_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    held: list[tuple[float, torch.Tensor]] = []
    for turn in range(400):
        size = int(torch.randint(1, 300_000, (), generator=generator))
        read, _ = record(torch.full((size,), float(turn)))
        held.append((turn, read))
        if len(held) > 30:
            value, gone = held.pop(int(torch.randint(0, 30, (), generator=generator)))
            assert (gone == value).all()
            gone.fill_(-1)
    assert all((tensor == value).all() for value, tensor in held)
    for _, tensor in held:
        assert_storage_is_exact(tensor)


@pytest.mark.parametrize("order", itertools.permutations(range(3)), ids=str)
def test_holes_side_by_side_become_one(limited: int, order: tuple[int, ...]) -> None:
    held = {place: recorded(8) for place in range(4)}  # which fill the slab
    for place in order:
        del held[place]
    assert (recorded(24, 2.0)[""].output == 2).all()
    assert (held[3][""].output == 1).all()


# ---- lifetimes ----


def test_a_record_outlives_its_cache_its_recorder_and_its_model() -> None:
    model: nn.Module | None = Give(lambda: torch.arange(1000.0))
    with nntap.capture(model) as cache:
        model()
    tensor = cache[""].output
    array = tensor.numpy()
    del cache, model, tensor
    gc.collect()
    others = [recorded(1, float(value)) for value in range(5)]
    nntap.trim()
    assert np.array_equal(array, np.arange(1000.0, dtype=np.float32))
    del others


def test_an_unread_record_lives_in_its_cache_alone() -> None:
    gc.collect()
    before = nntap.pool_stats()["used_bytes"]
    cache = recorded(1)
    assert nntap.pool_stats()["used_bytes"] == before + MIB
    del cache
    assert nntap.pool_stats()["used_bytes"] == before


def test_a_record_that_holds_its_cache_is_garbage_as_any_other_cycle() -> None:
    tensor = torch.ones(8)
    model = nn.ModuleList([Give(lambda: tensor), Give(lambda: tensor)])
    with nntap.capture(model) as cache:
        for module in model:
            module()
    shared = cache["0"].output
    shared.cache = cache  # the second record is the same tensor, and nobody has read it
    gone = weakref.ref(cache)
    del cache, shared
    gc.collect()
    assert gone() is None


def test_the_last_view_of_a_record_may_die_on_another_thread() -> None:
    gc.collect()
    before = nntap.pool_stats()["used_bytes"]
    held = [recorded(1)[""].output[10:20]]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert nntap.pool_stats()["used_bytes"] == before


@pytest.mark.parametrize("include_inputs", [False, True])
def test_ten_thousand_captures_leave_memory_where_the_third_left_it(include_inputs: bool) -> None:
    script = """
        import gc, sys, torch, nntap

        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 8)).eval()
        x = torch.ones(4, 8)

        def run(times):
            for _ in range(times):
                with torch.no_grad(), nntap.capture(model, include_inputs=sys.argv[1] == "True") as cache:
                    model(x)
                cache["1"].output, cache["2"].input

        def rss():
            gc.collect()
            pages = int(open("/proc/self/statm").read().split()[1])
            return pages * 4096

        def pool():
            return {name: value for name, value in nntap.pool_stats().items() if name != "peak_bytes"}

        run(3)
        third = pool()
        run(500)  # Python's and torch's own caches fill
        before = rss()
        run(10_000)
        assert pool() == third, (pool(), third)
        grown = rss() - before
        assert grown < 1 << 20, f"{grown} bytes more"
    """
    assert_script_runs(script, str(include_inputs))


def test_captures_that_raise_give_their_memory_back() -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    model = nn.Sequential(nn.Linear(300, 300), nn.Identity())
    model[1].register_forward_pre_hook(fail)
    x = torch.ones(300, 300)

    def run() -> None:
        with pytest.raises(ZeroDivisionError), nntap.capture(model, include_inputs=True):
            model(x)

    run()
    gc.collect()
    before = nntap.pool_stats()["used_bytes"]
    for _ in range(20):
        run()
    gc.collect()
    assert nntap.pool_stats()["used_bytes"] == before


# ---- under a limit ----


def test_under_a_limit_empty_slabs_make_room_for_a_larger_record() -> None:
    gc.collect()
    nntap.trim()
    nntap.set_limits(host_bytes=3 * SLAB)
    caches = [recorded(30), recorded(30)]
    caches.clear()
    assert (recorded(2 * SLAB // MIB, 2.0)[""].output == 2).all()
    assert nntap.pool_stats()["reserved_bytes"] <= 3 * SLAB
    nntap.set_limits(host_bytes=None)


def test_small_records_that_are_kept_leave_slabs_to_large_ones() -> None:
    gc.collect()
    nntap.trim()
    nntap.set_limits(host_bytes=6 * SLAB)
    model = nn.ModuleList([Give(lambda: filled(12)), Give(lambda: filled(12)), Give(lambda: torch.ones(4))])
    kept = []
    try:
        for _ in range(40):
            with nntap.capture(model) as cache:
                for module in model:
                    module()
            kept.append(cache["2"].output)
            del cache
    finally:
        nntap.set_limits(host_bytes=None)


def test_where_the_pool_may_not_grow_small_and_large_records_share_a_slab(limited: int) -> None:
    large, small = recorded(20), record(torch.ones(4))[0]
    assert nntap.pool_stats()["reserved_bytes"] == limited
    assert (large[""].output == 1).all()
    assert (small == 1).all()


def test_a_record_of_more_bytes_than_can_be_counted_is_refused() -> None:
    for dtype, elements in ((torch.float32, 2**62), (torch.float32, 2**62 - 4), (torch.float64, 2**61)):
        model = Give(lambda dtype=dtype, elements=elements: torch.ones(1, dtype=dtype).expand(elements))
        with pytest.raises(nntap.HostMemoryError, match="no host memory for a record"), nntap.capture(model):
            model()


# ---- reserve ----


def address_space() -> int:
    """What this process has mapped, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(("limit", "wanted"), [(2, 3), (40, 48)], ids=["at once", "after a first GiB"])
def test_reserve_under_a_limit_is_refused_and_keeps_nothing(limit: int, wanted: int) -> None:
    gc.collect()
    nntap.trim()
    nntap.set_limits(host_bytes=limit * SLAB)
    try:
        for warm in (False, True):
            if warm:
                recorded(1)
            before, mapped = nntap.pool_stats()["reserved_bytes"], address_space()
            with pytest.raises(
                nntap.HostMemoryError, match=r"raise the limit with nntap.set_limits\(host_bytes="
            ) as caught:
                nntap.reserve(wanted * SLAB)
            assert f"Taken: {before} bytes" in str(caught.value)
            assert f"limit: {limit * SLAB} bytes" in str(caught.value)
            assert nntap.pool_stats()["reserved_bytes"] == before
            assert address_space() < mapped + SLAB
        nntap.reserve(2 * SLAB)
        assert nntap.pool_stats()["reserved_bytes"] == 2 * SLAB
    finally:
        nntap.set_limits(host_bytes=None)


@pytest.mark.parametrize("nbytes", [1 << 45, 1 << 60, (1 << 64) - 1])
def test_reserve_of_more_than_the_machine_has_is_refused_and_keeps_nothing(nbytes: int) -> None:
    gc.collect()
    nntap.trim()
    with pytest.raises(nntap.HostMemoryError):
        nntap.reserve(nbytes)
    assert nntap.pool_stats()["reserved_bytes"] == 0


def test_reserve_touches_no_more_than_it_was_asked_for() -> None:
    gc.collect()
    nntap.trim()
    recorded(3 * SLAB // MIB)
    touched = nntap.pool_stats()["touched_bytes"]
    nntap.trim()
    nntap.reserve(1)
    assert nntap.pool_stats()["touched_bytes"] <= 4 * MIB < touched


def test_a_slab_whose_pages_are_being_touched_is_not_given_back() -> None:
    def kept() -> int:
        """What a trim leaves of the slabs that another thread reserves, in bytes."""
        gc.collect()
        nntap.trim()
        thread = threading.Thread(target=nntap.reserve, args=(8 * SLAB,))
        thread.start()
        while nntap.pool_stats()["touched_bytes"] == 0:
            pass
        nntap.trim()
        left = nntap.pool_stats()["reserved_bytes"]
        thread.join()
        nntap.trim()
        assert nntap.pool_stats()["touched_bytes"] == nntap.pool_stats()["reserved_bytes"] == 0
        return left

    assert any(kept() for _ in range(20)), "it is too late where the other thread has ended"


def test_reserve_of_more_than_can_be_counted_is_refused() -> None:
    with pytest.raises(nntap.HostMemoryError, match=f"no host memory for {2**70} bytes.*limit: none"):
        nntap.reserve(2**70)


def test_a_refused_reserve_of_pinned_memory_names_its_limit() -> None:
    before = nntap.pool_stats()["pinned"]["limit_bytes"]
    nntap.set_limits(pinned_bytes=SLAB)
    try:
        with simulated(), pytest.raises(nntap.HostMemoryError, match=r"no pinned memory.*set_limits\(pinned_bytes="):
            nntap.reserve(4 * SLAB)
    finally:
        nntap.set_limits(pinned_bytes=before)


# ---- what the machine has ----


WHOLE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V1 = "12:cpu,cpuacct:/job\n11:memory:{group}\n1:name=systemd:/other\n"
V2 = "0::{group}\n"


def memory_there(folder: Path, files: dict[str, Any]) -> tuple[int, int]:
    """The machine's memory and what is to be had of it, in bytes, on a system with these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content}\n")
    where = str(folder / "proc"), str(folder / "cgroups")
    return _core.memory_of_this_system(*where), _core.memory_to_be_had(*where)


def test_where_the_system_tells_nothing_all_memory_is_to_be_had(tmp_path: Path) -> None:
    assert memory_there(tmp_path, {}) == (WHOLE, WHOLE)
    assert memory_there(tmp_path, {"cgroups/memory.max": "max", "proc/self/cgroup": "?"}) == (WHOLE, WHOLE)


def test_what_other_processes_hold_is_not_to_be_had(tmp_path: Path) -> None:
    meminfo = "MemTotal:  9999 kB\nMemFree:  1 kB\nMemAvailable:  2048 kB"
    assert memory_there(tmp_path, {"proc/meminfo": meminfo}) == (WHOLE, 2 * MIB)


@pytest.mark.parametrize("group", ["/", "/job/step"], ids=["the topmost group", "a group within others"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_s_limit_counts_as_the_machine_s_memory(tmp_path: Path, version: int, group: str) -> None:
    mount = "cgroups" if version == 2 else "cgroups/memory"
    limit, used = (
        ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    cache = "inactive_file" if version == 2 else "total_inactive_file"
    files = {"proc/self/cgroup": (V1 if version == 1 else V2).format(group=group), f"{mount}{group}/{limit}": 8 * MIB}
    assert memory_there(tmp_path, files) == (8 * MIB, 8 * MIB)
    files = {f"{mount}{group}/{used}": 5 * MIB}
    assert memory_there(tmp_path, files) == (8 * MIB, 3 * MIB)
    files = {f"{mount}{group}/memory.stat": f"anon 17\n{cache} {MIB}\nactive_file 5"}
    assert memory_there(tmp_path, files) == (8 * MIB, 4 * MIB), "file cache goes when memory is wanted"
    files = {f"{mount}{group}/{used}": 9 * MIB}
    assert memory_there(tmp_path, files) == (8 * MIB, 0), "more than is allowed, after the limit was lowered"


def test_the_least_of_a_control_group_and_those_around_it_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": V2.format(group="/job/step"),
        "cgroups/job/step/memory.max": "max",
        "cgroups/job/memory.max": 6 * MIB,
        "cgroups/memory.max": 8 * MIB,
        "cgroups/memory.current": 7 * MIB,
    }
    assert memory_there(tmp_path, files) == (6 * MIB, MIB)
    assert memory_there(tmp_path, {"cgroups/job/step/memory.max": 4 * MIB}) == (4 * MIB, MIB)


def test_a_control_group_that_is_named_and_not_seen_leaves_those_around_it(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": V1.format(group="/docker/abc"), "cgroups/memory/memory.limit_in_bytes": 2 * MIB}
    assert memory_there(tmp_path, files) == (2 * MIB, 2 * MIB)
