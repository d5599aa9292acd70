"""A program of captures on the simulated driver, one of whose calls of the driver fails once, or from then on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nntap
from nntap.testing import Simulator, simulated

TYPED = (nntap.CudaError, nntap.HostMemoryError)
CHUNK = 256


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


def lose_the_device(entry: str, pinned: bool) -> None:
    """At every other call of an entry. What a lost device may still write to is never used again, so a process that
    lost one holds some memory for good: call this in one of its own."""
    sound, sim = run(0, pinned)
    assert sound.errors == []
    for nth in range(1, sim.report().calls[entry] + 1, 2):
        program, sim = run(nth, pinned, entry, nth, for_good=True)
        reached = sim.report().calls[entry] >= nth
        assert bool(program.errors) == reached
        assert all(torch.equal(record, truth) for record, truth in program.landed)


def lose_the_device_between_two_captures() -> None:
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
