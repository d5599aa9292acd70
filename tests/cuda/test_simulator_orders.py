"""Which orders the simulated driver lets happen: only those that CUDA allows, and all kinds of them.

Programs run on one-byte cells, so that no copy can be torn and each operation is one step. The reference walks every
order that the streams and waits of a program allow and collects what can come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from driver_rig import Rig, ok, rig
from nntap.testing import Pace, Stream

DEVICE_CELLS, HOST_CELLS, STREAMS = 3, 2, 3
Cells = tuple[int, ...]


@dataclass(frozen=True)
class Write:
    stream: int
    cell: int
    value: int


@dataclass(frozen=True)
class Move:
    stream: int
    cell: int
    source: int


@dataclass(frozen=True)
class ToHost:
    stream: int
    cell: int
    source: int


@dataclass(frozen=True)
class After:
    """An event, recorded after the last operation that `first` has so far, and awaited by `stream`."""

    stream: int
    first: int


Step = Write | Move | ToHost | After


# ---- the reference ----


def queues_of(program: Sequence[Step]) -> list[list[tuple[Step, int]]]:
    """Each stream's operations; with a wait comes how many operations of the other stream must be over."""
    queues: list[list[tuple[Step, int]]] = [[] for _ in range(STREAMS)]
    for step in program:
        awaited = len(queues[step.first]) if isinstance(step, After) else 0
        queues[step.stream].append((step, awaited))
    return queues


def applied(step: Step, cells: Cells) -> Cells:
    after = list(cells)
    if isinstance(step, Write):
        after[step.cell] = step.value
    elif isinstance(step, Move):
        after[step.cell] = cells[step.source]
    elif isinstance(step, ToHost):
        after[DEVICE_CELLS + step.cell] = cells[step.source]
    return tuple(after)


def possible_outcomes(program: Sequence[Step]) -> set[Cells]:
    """What all cells may be when everything has run."""
    queues = queues_of(program)
    seen = {((0,) * STREAMS, initial_cells())}
    left = list(seen)
    outcomes = set()
    while left:
        done, cells = left.pop()
        ready = [
            s
            for s, queue in enumerate(queues)
            if done[s] < len(queue)
            and (not isinstance(step := queue[done[s]][0], After) or done[step.first] >= queue[done[s]][1])
        ]
        if not ready:
            outcomes.add(cells)
        for s in ready:
            further = (*done[:s], done[s] + 1, *done[s + 1 :]), applied(queues[s][done[s]][0], cells)
            if further not in seen:
                seen.add(further)
                left.append(further)
    return outcomes


def initial_cells() -> Cells:
    return (*range(1, DEVICE_CELLS + 1), *[0] * HOST_CELLS)


# ---- the same on the simulated driver ----


class Machine:
    def __init__(self, r: Rig) -> None:
        self.r = r
        self.streams = [0, r.stream(), r.stream()]
        self.cells = [r.memory(value) for value in initial_cells()[:DEVICE_CELLS]]
        self.hosts = [r.host(1) for _ in range(HOST_CELLS)]

    def enqueue(self, step: Step) -> None:
        r, stream = self.r, self.streams[step.stream]
        on = Stream(stream, 0)
        if isinstance(step, Write):
            r.sim.write(self.cells[step.cell], torch.tensor([step.value], dtype=torch.uint8), on)
        elif isinstance(step, Move):
            r.sim.copy(self.cells[step.cell], self.cells[step.source], on)
        elif isinstance(step, ToHost):
            r.to_host(self.hosts[step.cell], self.cells[step.source], stream)
        else:
            r.wait(stream, r.record(self.streams[step.first]))

    def values(self) -> Cells:
        return tuple(int(cell.item()) for cell in [*self.cells, *self.hosts])


def outcome(program: Sequence[Step], seed: int, pace: Pace = "any") -> Cells:
    with rig(seed, pace=pace) as r:
        machine = Machine(r)
        for step in program:
            machine.enqueue(step)
        r.sim.drain()
        return machine.values()


streams = st.integers(0, STREAMS - 1)
device_cells = st.integers(0, DEVICE_CELLS - 1)
host_cells = st.integers(0, HOST_CELLS - 1)
steps = st.one_of(
    st.builds(Write, streams, device_cells, st.integers(10, 99)),
    st.builds(Move, streams, device_cells, device_cells),
    st.builds(ToHost, streams, host_cells, device_cells),
    st.builds(After, streams, streams),
)
programs = st.lists(steps, min_size=1, max_size=12)


@given(programs, st.integers(0, 2**64 - 1))
@settings(max_examples=1000)
def test_nothing_happens_that_cuda_forbids(program: list[Step], seed: int) -> None:
    assert outcome(program, seed) in possible_outcomes(program)


@given(programs, st.integers(0, 2**64 - 1))
@settings(max_examples=100)
def test_virtual_time_is_one_of_the_orders_that_cuda_allows(program: list[Step], seed: int) -> None:
    assert outcome(program, seed, "timed") in possible_outcomes(program)


# ---- programs in which every conflict is ordered ----


def touches(step: Step) -> tuple[set[str], set[str]]:
    """The cells that it reads, and those that it writes."""
    if isinstance(step, Write):
        return set(), {f"d{step.cell}"}
    if isinstance(step, Move):
        return {f"d{step.source}"}, {f"d{step.cell}"}
    if isinstance(step, ToHost):
        return {f"d{step.source}"}, {f"h{step.cell}"}
    return set(), set()


def conflict(a: Step, b: Step) -> bool:
    (reads_a, writes_a), (reads_b, writes_b) = touches(a), touches(b)
    return bool(writes_a & (reads_b | writes_b) or reads_a & writes_b)


def ordered(program: Sequence[Step]) -> list[Step]:
    """The program, with a wait before each operation for every stream in which it conflicts with an earlier one."""
    out: list[Step] = []
    for i, step in enumerate(program):
        others = {earlier.stream for earlier in program[:i] if conflict(earlier, step)} - {step.stream}
        out += [After(step.stream, other) for other in sorted(others)]
        out.append(step)
    return out


def sequential(program: Sequence[Step]) -> Cells:
    cells = initial_cells()
    for step in program:
        cells = applied(step, cells)
    return cells


plain_programs = st.lists(steps.filter(lambda step: not isinstance(step, After)), min_size=1, max_size=12)


@given(plain_programs, st.integers(0, 2**64 - 1))
@settings(max_examples=300)
def test_a_reader_that_waits_sees_what_the_sequential_program_gives(program: list[Step], seed: int) -> None:
    with rig(seed) as r:
        machine = Machine(r)
        for i, step in enumerate(program):
            for each in ordered(program[: i + 1])[len(ordered(program[:i])) :]:
                machine.enqueue(each)
            if isinstance(step, ToHost):
                ok(r.raw.event_synchronize(r.record(machine.streams[step.stream])))
                assert machine.hosts[step.cell].item() == sequential(program[: i + 1])[DEVICE_CELLS + step.cell]
        r.sim.drain()
        assert machine.values() == sequential(program)


RACES = {
    "a copy must wait for the kernel that makes its source": [Write(0, 0, 50), After(1, 0), ToHost(1, 0, 0)],
    "a kernel must wait before it overwrites what a copy reads": [ToHost(1, 0, 0), After(0, 1), Write(0, 0, 50)],
    "two copies to the same place must be in order": [ToHost(1, 0, 0), After(2, 1), ToHost(2, 0, 1)],
    "the way through a third stream": [Write(0, 0, 50), After(2, 0), Move(2, 1, 0), After(1, 2), ToHost(1, 0, 1)],
    "a chunk used again": [
        Move(0, 0, 1),
        After(1, 0),
        ToHost(1, 0, 0),
        After(0, 1),
        Move(0, 0, 2),
        After(1, 0),
        ToHost(1, 1, 0),
    ],
}
EDGES = [(name, i) for name, program in RACES.items() for i, step in enumerate(program) if isinstance(step, After)]


@pytest.mark.parametrize(("name", "edge"), EDGES, ids=[f"{name}, wait {edge}" for name, edge in EDGES])
def test_a_missing_wait_shows(name: str, edge: int) -> None:
    program = RACES[name]
    assert possible_outcomes(program) == {sequential(program)}
    racy = program[:edge] + program[edge + 1 :]
    outcomes = [outcome(racy, seed) for seed in range(40)]
    assert set(outcomes) > {sequential(program)}, "both the right and a wrong result"


@given(plain_programs, st.data())
@settings(max_examples=60, derandomize=True)
def test_where_several_orders_give_several_results_several_are_seen(program: list[Step], data: st.DataObject) -> None:
    whole = ordered(program)
    waits = [i for i, step in enumerate(whole) if isinstance(step, After)]
    if waits:
        missing = data.draw(st.sampled_from(waits))
        whole = whole[:missing] + whole[missing + 1 :]
    seen = set()
    for seed in range(300):
        seen.add(outcome(whole, seed))
        if len(seen) > 1:
            break
    assert (len(seen) > 1) == (len(possible_outcomes(whole)) > 1)
