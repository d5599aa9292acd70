"""Driver calls that fail: a right record or a typed error, nothing left behind, and the next run is clean."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import nntap
from failing_calls import CHUNK, Given, run
from helpers import Give, assert_script_runs
from nntap.testing import ENTRIES, simulated
from nntap.testing.schedules import bytes_in_use

pytestmark = pytest.mark.timeout(120)  # of a hang

NEVER_FAILING = {"init", "driver_version", "device_count", "device_name", "device_attribute", "error_name"}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = bytes_in_use()
    yield
    gc.collect()  # the errors' tracebacks hold records
    run(0, True)
    gc.collect()
    assert all(bytes_in_use()[pool] <= before[pool] for pool in before)


@pytest.fixture(scope="module")
def calls() -> dict[bool, dict[str, int]]:
    """How often the standard program calls each entry, with pinned records and with staged ones."""
    counted = {}
    for pinned in (True, False):
        program, sim = run(0, pinned)
        assert program.errors == []
        assert program.reads == 12
        counted[pinned] = sim.report().calls
    return counted


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "staged"])
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry not in NEVER_FAILING])
def test_a_call_that_fails_gives_a_right_record_or_a_typed_error(
    entry: str, pinned: bool, calls: dict[bool, dict[str, int]]
) -> None:
    failed = 0
    for nth in range(1, calls[pinned][entry] + 1):
        program, _ = run(nth, pinned, entry, nth)
        failed += bool(program.errors)
        clean, _ = run(nth, pinned)
        assert clean.errors == []
    if entry not in SILENT:
        assert failed > 0 or calls[pinned][entry] == 0


# What is not told to anybody: things are given back with these, or a thread does it again.
SILENT = {"context_pop", "stream_destroy", "event_destroy", "host_unregister", "primary_context_release"} | {
    "stream_synchronize"
}


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "staged"])
@pytest.mark.parametrize("entry", ["launch", "copy_to_host", "event_record", "event_synchronize", "event_query"])
def test_a_lost_device_gives_typed_errors_and_what_landed_stays(entry: str, pinned: bool) -> None:
    assert_script_runs(f"from failing_calls import lose_the_device; lose_the_device({entry!r}, {pinned})")


def test_records_that_landed_before_the_device_was_lost_stay_readable() -> None:
    assert_script_runs("from failing_calls import lose_the_device_between_two_captures as lose; lose()")


@pytest.mark.parametrize("entry", ["init", "driver_version"])
def test_a_driver_that_does_not_start_is_refused(entry: str) -> None:
    from nntap import _core

    with simulated(engine=False) as sim:
        sim.fail(entry)
        with pytest.raises(nntap.CudaError, match="driver"):
            _core.testing.use(True)


def test_an_error_that_the_driver_cannot_name_is_shown_by_its_number() -> None:
    with simulated(chunk_bytes=CHUNK) as sim:
        module = Given(sim, [torch.ones(4)])
        sim.fail("launch", result=719)
        sim.fail("error_name")
        with pytest.raises(nntap.CudaError, match=r"cuLaunchKernel failed with an unknown error \(719\)"):
            with nntap.capture(module):
                module()


def test_a_device_that_does_not_say_what_it_is_is_an_error() -> None:
    for nth in (1, 2):
        with simulated(chunk_bytes=CHUNK) as sim:
            module = Given(sim, [torch.ones(4)])
            sim.fail("device_attribute", nth)
            with pytest.raises(nntap.CudaError, match="cuDeviceGetAttribute"):
                with nntap.capture(module):
                    module()


class Refusing(torch.Tensor):
    """Cannot be recorded."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ValueError("refused")


def test_a_recording_that_fails_inside_another_one_leaves_that_whole() -> None:
    with simulated(pace="always") as sim:
        first, second = (sim.empty(8, torch.float32).fill_(value) for value in (1.0, 2.0))
        inner = Give(lambda: [second, torch.ones(1).as_subclass(Refusing)])

        class Recording(torch.Tensor):
            """Runs another captured model while it is recorded."""

            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                with pytest.raises(ValueError, match="refused"), nntap.capture(inner):
                    inner()
                return super().__torch_function__(func, types, args, kwargs or {})

        outer = Give(lambda: [first, torch.ones(1).as_subclass(Recording)])
        with nntap.capture(outer) as cache:
            outer()
        assert cache[""].output[0].tolist() == [1.0] * 8
        del cache
