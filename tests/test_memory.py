"""Host memory: what the pool holds, its limit, and that it comes back."""

from __future__ import annotations

import _thread
import gc
import itertools
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nntap
from helpers import Give, assert_script_runs, assert_storage_is_exact, hooks_of, record
from nntap import _core
from nntap.testing import simulated

MIB = 1 << 20
SLAB = nntap.pool_stats()["slab_bytes"]


def filled(mib: int, value: float = 1.0) -> torch.Tensor:
    return torch.full((mib * MIB // 4,), value)


def recorded(mib: int, value: float = 1.0) -> nntap.Cache:
    """A cache with one record of that size."""
    model = Give(lambda: filled(mib, value))
    with nntap.capture(model) as cache:
        model()
    return cache


@pytest.fixture
def limited() -> Iterator[int]:
    """A limit of one slab, in an empty pool."""
    gc.collect()
    nntap.trim()
    assert nntap.pool_stats()["reserved_bytes"] == 0, "a test kept records"
    nntap.set_limits(host_bytes=SLAB)
    yield SLAB
    nntap.set_limits(host_bytes=None, wait_seconds=30)


@contextmanager
def another_thread() -> Iterator[None]:
    """A thread that lives, so that a stall has somebody to wait for."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, args=(300,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


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


# ---- the limit ----


def test_a_recording_thread_waits_until_another_one_frees_memory(limited: int) -> None:
    held = [recorded(24, 5.0)]
    model = Give(lambda: filled(16, 6.0))
    caches: list[nntap.Cache] = []

    def work() -> None:
        with nntap.capture(model) as cache:
            caches.append(cache)
            model()

    worker = threading.Thread(target=work)
    worker.start()
    while not caches or caches[0].stats.stalls == 0:
        assert worker.is_alive()
        threading.Event().wait(0.001)
    assert len(caches[0]) == 0
    held.clear()
    worker.join()
    assert (caches[0][""].output == 6).all()
    assert caches[0].stats.stalls == 1
    assert caches[0].stats.stall_seconds > 0
    assert nntap.pool_stats()["reserved_bytes"] <= limited


def edit(tensor: torch.Tensor) -> None:
    tensor.add_(1)


def free(tensor: torch.Tensor) -> None:
    tensor.untyped_storage().resize_(0)


@pytest.mark.parametrize("change", [edit, free])
@pytest.mark.parametrize(
    "device", [nullcontext, lambda: simulated(pinned=False, chunk_bytes=32 * MIB)], ids=["cpu", "gpu"]
)
def test_a_tensor_that_another_thread_changes_while_its_record_waits_is_not_recorded(
    limited: int, change: Any, device: Any
) -> None:
    held = [recorded(24)]
    tensor = filled(16)
    model = Give(lambda: tensor)
    caches: list[nntap.Cache] = []

    def meanwhile() -> None:
        while not caches or caches[0].stats.stalls == 0:
            threading.Event().wait(0.001)
        change(tensor)
        held.clear()

    other = threading.Thread(target=meanwhile)
    with device(), nntap.capture(model) as cache:
        caches.append(cache)
        other.start()
        with pytest.raises(nntap.HostMemoryError, match="changed by another thread while its record waited"):
            model()
        other.join()
        assert len(cache) == 0
        tensor.untyped_storage().resize_(16 * MIB)
        model()
        assert torch.equal(cache[""].output, tensor)
        del cache
        caches.clear()


def test_when_all_memory_is_the_capture_s_own_it_raises_and_keeps_what_it_has(limited: int) -> None:
    model = nn.Sequential(*(Give(lambda value=value: filled(12, float(value))) for value in range(4)))
    kept = None

    def run() -> None:
        nonlocal kept
        with nntap.capture(model) as kept:
            model(torch.ones(1))

    with another_thread(), pytest.raises(nntap.HostMemoryError) as caught:
        run()
    for part in (f"{12 * MIB} bytes", "belongs to this capture", f"limit: {limited} bytes", "nntap.set_limits"):
        assert part in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert kept is not None
    assert kept.keys() == ["0", "1"]
    assert (kept["0"].output == 0).all()
    assert (kept["1"].output == 1).all()
    assert kept.stats.stalls == 1
    assert hooks_of(model) == []
    kept = None
    assert (recorded(12, 8.0)[""].output == 8).all()


def test_where_no_other_thread_lives_it_raises_at_once() -> None:
    # In a process of its own: other tests' libraries leave threads behind.
    script = """
        import nntap, torch
        class Filled(torch.nn.Module):
            def forward(self, mib):
                return torch.full((mib << 18,), 5.0)
        nntap.set_limits(host_bytes=nntap.pool_stats()["slab_bytes"])
        model = Filled()
        with nntap.capture(model) as held:
            model(24)
        try:
            with nntap.capture(model):
                model(16)
        except nntap.HostMemoryError as error:
            print("no other thread lives" in str(error), bool((held[""].output == 5).all()))
    """
    assert_script_runs(script, says="True True")


def test_it_waits_no_longer_than_it_may(limited: int) -> None:
    held = recorded(24)
    nntap.set_limits(wait_seconds=0)
    assert nntap.pool_stats()["wait_seconds"] == 0
    with another_thread(), pytest.raises(nntap.HostMemoryError, match="within wait_seconds"):
        recorded(16)
    del held


def test_garbage_is_collected_before_a_stall_gives_up(limited: int) -> None:
    cycle: list[Any] = [recorded(24)]
    cycle.append(cycle)
    del cycle
    thresholds = gc.get_threshold()
    gc.set_threshold(0)  # only who asks for it collects
    try:
        assert (recorded(16, 4.0)[""].output == 4).all()
    finally:
        gc.set_threshold(*thresholds)


def test_a_short_stall_collects_no_garbage(limited: int) -> None:
    collections = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            collections.append(info)

    def stall_until_another_thread_drops() -> int:
        """How many full collections one stall took."""
        held = [recorded(24)]
        caches: list[nntap.Cache] = []

        def drop() -> None:
            while not caches or caches[0].stats.stalls == 0:
                threading.Event().wait(0.001)
            held.clear()

        thread = threading.Thread(target=drop)
        model = Give(lambda: filled(16))
        thread.start()
        collections.clear()
        with nntap.capture(model) as cache:
            caches.append(cache)
            model()
        thread.join()
        assert cache.stats.stalls == 1
        return len(collections)

    gc.callbacks.append(note)
    try:  # a busy machine may keep the other thread from running for as long as a stall waits before it collects
        assert 0 in (stall_until_another_thread_drops() for _ in range(20))
    finally:
        gc.callbacks.remove(note)


def test_ctrl_c_ends_a_stall(limited: int) -> None:
    nntap.set_limits(wait_seconds=300)
    held = recorded(24)
    model = Give(lambda: filled(16))
    caches: list[nntap.Cache] = []

    def interrupt() -> None:
        while not caches or caches[0].stats.stalls == 0:
            threading.Event().wait(0.001)
        threading.Event().wait(1)  # a stall soon collects garbage, whose callbacks would swallow it
        _thread.interrupt_main()

    def run() -> None:
        with nntap.capture(model) as cache:
            caches.append(cache)
            model()

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    gc.collect()
    gc.freeze()  # so that the stall's own collection is short
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run()
        thread.join()
    finally:
        gc.unfreeze()
        signal.signal(signal.SIGINT, before)
    assert hooks_of(model) == []
    del held


def test_under_a_limit_empty_slabs_make_room_for_a_larger_record() -> None:
    gc.collect()
    nntap.trim()
    nntap.set_limits(host_bytes=3 * SLAB)
    caches = [recorded(30), recorded(30)]
    caches.clear()
    assert (recorded(2 * SLAB // MIB, 2.0)[""].output == 2).all()
    assert nntap.pool_stats()["reserved_bytes"] <= 3 * SLAB
    nntap.set_limits(host_bytes=None)


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        ({"host_bytes": SLAB - 1}, ValueError, [f"host_bytes={SLAB - 1}", "one slab", str(SLAB), "None"]),
        ({"host_bytes": 0}, ValueError, ["host_bytes=0", "one slab"]),
        ({"host_bytes": -5}, ValueError, ["host_bytes=-5", "one slab"]),
        ({"host_bytes": 1e9}, TypeError, ["host_bytes=1000000000.0", "whole number"]),
        ({"host_bytes": "4GiB"}, TypeError, ["host_bytes='4GiB'", "whole number"]),
        ({"host_bytes": True}, TypeError, ["host_bytes=True", "whole number"]),
        ({"wait_seconds": -1}, ValueError, ["wait_seconds=-1", "from 0 on"]),
        ({"wait_seconds": "long"}, TypeError, ["wait_seconds='long'", "seconds"]),
        ({"host_bytes": SLAB, "wait_seconds": -1}, ValueError, ["wait_seconds=-1"]),
        ({"host_bytes": 1, "wait_seconds": 3}, ValueError, ["host_bytes=1"]),
    ],
    ids=str,
)
def test_a_limit_that_is_not_allowed_changes_nothing(
    limits: dict[str, Any], kind: type[Exception], says: list[str]
) -> None:
    before = nntap.pool_stats()
    with pytest.raises(kind) as caught:
        nntap.set_limits(**limits)
    for part in says:
        assert part in str(caught.value)
    assert nntap.pool_stats() == before


def test_a_limit_may_be_any_whole_number(limited: int) -> None:
    nntap.set_limits(host_bytes=np.int64(2 * SLAB))  # type: ignore[arg-type]
    assert nntap.pool_stats()["limit_bytes"] == 2 * SLAB


def test_what_is_not_given_stays_as_it_is() -> None:
    nntap.set_limits(host_bytes=SLAB, wait_seconds=5)
    nntap.set_limits(wait_seconds=6)
    assert [nntap.pool_stats()[name] for name in ("limit_bytes", "wait_seconds")] == [SLAB, 6]
    nntap.set_limits(host_bytes=None)
    assert [nntap.pool_stats()[name] for name in ("limit_bytes", "wait_seconds")] == [None, 6]
    nntap.set_limits(wait_seconds=30)


def test_a_capture_of_small_records_that_owns_all_memory_fails_at_once(limited: int) -> None:
    values = itertools.count()
    model = Give(lambda: torch.full((4033,), next(values) % 200, dtype=torch.uint8))  # which takes 4096 bytes

    def run() -> None:
        with nntap.capture(model):
            for _ in range(limited // 4096 + 1):
                model()

    with another_thread(), pytest.raises(nntap.HostMemoryError, match="belongs to this capture"):
        run()


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


def test_reserve_under_a_limit_is_refused_and_keeps_nothing() -> None:
    gc.collect()
    nntap.trim()
    nntap.set_limits(host_bytes=2 * SLAB)
    try:
        for warm in (False, True):
            if warm:
                recorded(1)
            before = nntap.pool_stats()["reserved_bytes"]
            with pytest.raises(nntap.HostMemoryError, match="raise the limit"):
                nntap.reserve(3 * SLAB)
            assert nntap.pool_stats()["reserved_bytes"] == before
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


# ---- what the machine has ----


def test_a_control_group_s_limit_counts_as_the_machine_s_memory(tmp_path: Path) -> None:
    whole = _core.memory_of_this_system(str(tmp_path))
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "memory.max").write_text("max\n")
    assert _core.memory_of_this_system(str(tmp_path)) == whole
    (tmp_path / "memory.max").write_text(f"{3 * MIB}\n")
    assert _core.memory_of_this_system(str(tmp_path)) == 3 * MIB
    (tmp_path / "memory.max").unlink()
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text(f"{2 * MIB}\n")
    assert _core.memory_of_this_system(str(tmp_path)) == 2 * MIB


# ---- more than can be counted ----


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        ({"host_bytes": 2**70, "wait_seconds": 5}, ValueError, [f"host_bytes={2**70}", "at most 2**63 - 1", "None"]),
        ({"pinned_bytes": 2**63, "wait_seconds": 5}, ValueError, [f"pinned_bytes={2**63}", "at most 2**63 - 1"]),
        ({"device_bytes": 2**65, "host_bytes": SLAB}, ValueError, [f"device_bytes={2**65}", "at most 2**63 - 1"]),
        ({"wait_seconds": 10**400, "host_bytes": SLAB}, ValueError, ["wait_seconds=1000", "or math.inf"]),
        ({"wait_seconds": float("nan"), "host_bytes": SLAB}, ValueError, ["wait_seconds=nan", "from 0 on"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_limit_that_cannot_be_counted_changes_nothing(
    limits: dict[str, Any], kind: type[Exception], says: list[str]
) -> None:
    test_a_limit_that_is_not_allowed_changes_nothing(limits, kind, says)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [(5, ValueError, "device_bytes=5 is not allowed: give at least 1 MiB"), (None, TypeError, "device_bytes=None")],
)
def test_the_limit_of_gpu_memory_takes_no_none_and_offers_none(value: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        nntap.set_limits(device_bytes=value)
    assert "or None" not in str(caught.value)


def test_reserve_of_more_than_can_be_counted_is_refused() -> None:
    with pytest.raises(nntap.HostMemoryError, match=f"no host memory for {2**70} bytes"):
        nntap.reserve(2**70)
