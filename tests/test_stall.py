"""Recording while no host memory is left: who waits for what, for how long, and how it ends."""

from __future__ import annotations

import _thread
import gc
import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import Give, assert_script_runs, hooks_of, wait_until
from host_memory import MIB, filled, recorded
from nntap.testing import simulated


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


def stalls(caches: list[nntap.Cache]) -> bool:
    """Whether the first of them, which another thread may still have to add, has had to wait for memory."""
    return bool(caches) and caches[0].stats.stalls > 0


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
    wait_until(lambda: stalls(caches) or not worker.is_alive())
    assert worker.is_alive()
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
        wait_until(lambda: stalls(caches))
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


@pytest.mark.parametrize("device", [nullcontext, lambda: simulated(chunk_bytes=32 * MIB)], ids=["cpu", "gpu"])
def test_a_record_that_the_limit_can_never_hold_does_not_wait(limited: int, device: Any) -> None:
    before = nntap.pool_stats()["pinned"]["limit_bytes"]
    nntap.set_limits(wait_seconds=300, pinned_bytes=limited)
    tensor = filled(2 * limited // MIB)
    model = Give(lambda: tensor)
    held = recorded(1)  # another's, so that there is something to wait for
    with device(), another_thread(), nntap.capture(model) as cache:
        with pytest.raises(nntap.HostMemoryError, match="below what this one record takes") as caught:
            model()
        assert f"limit: {limited} bytes" in str(caught.value)
        assert cache.stats.stalls == 0
        del cache
    assert (held[""].output == 1).all()
    nntap.set_limits(pinned_bytes=before)


def test_what_a_capture_holds_of_pinned_memory_is_not_what_its_cpu_tensors_wait_for(limited: int) -> None:
    nntap.set_limits(wait_seconds=300)
    on_gpu, on_cpu = Give(lambda: filled(24)), Give(lambda: filled(16, 2.0))
    held = [recorded(24)]
    caches: list[nntap.Cache] = []
    before = nntap.pool_stats()["pinned"]["used_bytes"]

    def drop() -> None:
        wait_until(lambda: stalls(caches))
        held.clear()

    thread = threading.Thread(target=drop)
    with nntap.capture(nn.Sequential(on_gpu, on_cpu)) as cache:
        caches.append(cache)
        with simulated(chunk_bytes=32 * MIB):
            on_gpu()
            assert (cache["0"].output == 1).all()
        assert nntap.pool_stats()["pinned"]["used_bytes"] - before == 24 * MIB
        thread.start()
        try:
            on_cpu()
        finally:
            caches.append(cache)
            held.clear()
            thread.join()
    assert cache.stats.stalls == 1
    assert (cache["1"].output == 2).all()


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
            wait_until(lambda: stalls(caches))
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
        wait_until(lambda: stalls(caches))
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


def test_a_capture_of_small_records_that_owns_all_memory_fails_at_once(limited: int) -> None:
    values = itertools.count()
    model = Give(lambda: torch.full((4033,), next(values) % 200, dtype=torch.uint8))  # which takes 4096 bytes

    def run() -> None:
        with nntap.capture(model):
            for _ in range(limited // 4096 + 1):
                model()

    with another_thread(), pytest.raises(nntap.HostMemoryError, match="belongs to this capture"):
        run()
