"""Pinned memory that a thread of the engine takes ahead of need, on the simulated driver."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import nntap
from helpers import assert_script_runs, wait_until
from host_memory import SLAB, recorded
from nntap.testing import simulated
from nntap.testing.simulator import Simulator


def pinned(sim: Simulator) -> int:
    """What the driver has pinned for records, in bytes."""
    return sim.report().registered_bytes - SLAB  # which is for staging


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated GPU, and no pinned memory yet."""
    gc.collect()
    nntap.trim()
    with simulated(grow_ahead=True) as sim:
        yield sim
        gc.collect()
        nntap.trim()


def test_as_much_again_comes_behind_what_was_needed(sim: Simulator) -> None:
    first = recorded(1)
    wait_until(lambda: pinned(sim) == 2 * SLAB)
    second = [recorded(20), recorded(20)]  # the second of which needs what came
    assert pinned(sim) == 2 * SLAB
    third = recorded(20, 3.0)
    wait_until(lambda: pinned(sim) == 6 * SLAB)
    assert all((cache[""].output == 1).all() for cache in (first, *second))
    assert (third[""].output == 3).all()
    assert nntap.pool_stats()["pinned"]["reserved_bytes"] == 6 * SLAB


def test_what_the_driver_refuses_to_the_thread_costs_no_record(sim: Simulator) -> None:
    nntap.reserve(0)
    sim.fail("host_register", 2, 2)  # the first one is the record's
    before = sim.report().calls["host_register"]
    first = recorded(1)
    wait_until(lambda: sim.report().calls["host_register"] == before + 2)
    second = [recorded(20, float(value)) for value in range(3)]
    assert (first[""].output == 1).all()
    assert all((cache[""].output == value).all() for value, cache in enumerate(second))
    assert pinned(sim) == SLAB
    del first, second
    gc.collect()
    nntap.trim()
    recorded(1)  # memory came back to the driver, so that it is asked again
    wait_until(lambda: pinned(sim) == 2 * SLAB)


def test_the_limit_holds_for_the_thread_too(sim: Simulator) -> None:
    usual = nntap.pool_stats()["pinned"]["limit_bytes"]
    nntap.set_limits(pinned_bytes=SLAB)
    try:
        caches = [recorded(20, float(value)) for value in range(3)]
        assert all((cache[""].output == value).all() for value, cache in enumerate(caches))
        assert nntap.pool_stats()["pinned"]["reserved_bytes"] == SLAB
    finally:
        nntap.set_limits(pinned_bytes=usual)


def test_a_device_may_go_while_the_thread_pins() -> None:
    for _ in range(30):
        gc.collect()
        nntap.trim()
        with simulated(grow_ahead=True):  # which looks for memory that is still registered at its end
            assert (recorded(1)[""].output == 1).all()


def test_a_forked_child_leaves_pinned_memory_alone_and_ends() -> None:
    script = """
        import os, sys, nntap
        from helpers import wait_until
        from host_memory import SLAB, recorded
        from nntap.testing import simulated
        with simulated(grow_ahead=True, check=False) as sim:
            cache = recorded(1)
            cache[""].output
            wait_until(lambda: sim.report().registered_bytes == 3 * SLAB)
            before = sim.report().calls
            child = os.fork()
            if child == 0:
                nntap.set_limits(pinned_bytes=SLAB)
                nntap.trim()
                assert sim.report().calls == before
                assert float(cache[""].output[0]) == 1
                sys.exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            more = recorded(40, 2.0)
            assert float(more[""].output.mean()) == 2
        print("done")
    """
    assert_script_runs(script, says="done")


def test_a_child_may_be_forked_while_another_thread_pins() -> None:
    script = """
        import os, sys, threading, nntap
        from host_memory import recorded
        from nntap.testing import simulated
        with simulated(check=False) as sim:
            recorded(1)
            done = threading.Event()
            def pin():
                while not done.is_set():
                    nntap.reserve(64 << 20)
                    nntap.trim()
            thread = threading.Thread(target=pin)
            thread.start()
            for _ in range(100):
                child = os.fork()
                if child == 0:
                    nntap.set_limits(pinned_bytes=32 << 20)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            done.set()
            thread.join()
        print("done")
    """
    assert_script_runs(script, says="done")
