"""Driver calls that fail: a right record or a typed error, nothing left behind, and the next run is clean."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import nntap
from helpers import Give
from nntap.testing import ENTRIES, Simulator, simulated
from nntap.testing.schedules import bytes_in_use

pytestmark = pytest.mark.timeout(120)  # of a hang

TYPED = (nntap.CudaError, nntap.HostMemoryError)
CHUNK = 256
NEVER_FAILING = {"init", "driver_version", "device_count", "device_name", "device_attribute", "error_name"}


class Given(torch.nn.Module):
    """Gives back what it is given, having written it on the current stream."""

    def __init__(self, sim: Simulator, values: list[torch.Tensor]) -> None:
        super().__init__()
        self.sim = sim
        self.values = values

    def forward(self) -> list[torch.Tensor]:
        made = [self.sim.empty(each.numel(), each.dtype) for each in self.values]
        for tensor, values in zip(made, self.values, strict=True):
            self.sim.write(tensor, values)
        return made


def sizes() -> list[list[torch.Tensor]]:
    """What three modules give back: small, several chunks together, one much larger than a chunk."""
    counts = [[3, 16], [40, 64, 20, 50], [4 * CHUNK]]
    return [[torch.arange(1.0, count + 1) * (number + 1) for count in each] for number, each in enumerate(counts)]


class Run:
    """The standard program: a model is recorded on two streams and read, in the middle and at the end."""

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.errors: list[BaseException] = []
        self.reads = 0
        self.landed: list[tuple[torch.Tensor, torch.Tensor]] = []  # each record that was read, and what it has to be
        self.model = torch.nn.ModuleList(Given(sim, values) for values in sizes())
        self.expected: list[tuple[int, Any]] = []

    def __call__(self) -> None:
        streams = [self.sim.default_stream(), self.sim.stream(lazy=True)]
        with nntap.capture(self.model, modules=["0", "1", "2"]) as cache:
            for turn in range(3):
                for number, module in enumerate(self.model):
                    with streams[(turn + number) % 2]:
                        self.attempt(module)
                if turn == 0:
                    self.read(cache)
        self.read(cache)
        self.attempt(nntap.trim)

    def attempt(self, action: Any) -> Any:
        try:
            return action()
        except TYPED as error:
            self.errors.append(error)
            return None

    def read(self, cache: Any) -> None:
        for path in cache:
            for step in cache[path]:
                value = self.attempt(lambda step=step: step.output)
                if value is None:
                    continue
                self.reads += 1
                for record, truth in zip(value, self.model[int(path)].values, strict=True):
                    assert torch.equal(record, truth), f"a wrong value of {path}"
                    self.landed.append((record, truth))


def run(
    seed: int, pinned: bool, entry: str | None = None, nth: int = 1, for_good: bool = False
) -> tuple[Run, Simulator]:
    with simulated(
        seed, lazy=True, chunk_bytes=CHUNK, device_bytes=2 * CHUNK, pinned=pinned, check=not for_good
    ) as sim:
        program = Run(sim)
        if entry is not None:
            (sim.fail_all_after if for_good else sim.fail)(entry, nth)
        program()
    return program, sim


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = bytes_in_use()
    yield
    gc.collect()  # the errors' tracebacks hold records
    run(0, True)
    gc.collect()
    if "lost" not in request.node.name:  # of a lost device nobody can say that it writes no more
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
def test_a_lost_device_gives_typed_errors_and_what_landed_stays(
    entry: str, pinned: bool, calls: dict[bool, dict[str, int]]
) -> None:
    for nth in range(1, calls[pinned][entry] + 1, 2):
        program, sim = run(nth, pinned, entry, nth, for_good=True)
        reached = sim.report().calls[entry] >= nth
        assert bool(program.errors) == reached
        assert all(torch.equal(record, truth) for record, truth in program.landed)


def test_records_that_landed_before_the_device_was_lost_stay_readable() -> None:
    with simulated(1, lazy=True, chunk_bytes=CHUNK, device_bytes=2 * CHUNK, check=False) as sim:
        module = Given(sim, [torch.arange(9.0)])
        with nntap.capture(module) as first:
            module()
        landed = first[""].output
        with nntap.capture(module) as second:
            module()
        sim.fail_all_after("event_synchronize")
        with pytest.raises(nntap.CudaError, match="never reached the host"):
            _ = second[""].output
        with pytest.raises(nntap.CudaError), nntap.capture(module):
            module()
        assert torch.equal(first[""].output[0], torch.arange(9.0))
    assert torch.equal(landed[0], torch.arange(9.0))


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
