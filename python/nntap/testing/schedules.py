"""Random schedules: each is one random program on one random simulation, and all of it follows from a seed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

from nntap import _core
from nntap.testing.programs import Program
from nntap.testing.simulator import ENTRIES, Simulator, simulated

_NEVER_FAIL = ("init", "driver_version", "error_name", "device_count")  # before anything is recorded, or the message


class Leak(AssertionError):
    """Memory that did not come back."""


def run_schedule(seed: int) -> None:
    """Runs the schedule of that seed; it leaves nothing behind.

    Raises:
        WrongValue: If a record is not what its module gave back.
        AssertionError: For a broken rule of CUDA, or something that was not given back.
        CudaError: If the engine fails where the driver does not; a deadlock, for one.
    """
    before = _in_use()
    _simulate(Random(seed), seed)
    after = _in_use()
    if after != before:
        raise Leak(f"bytes in use before and after: {before}, {after}")


def run_schedules(seeds: Iterable[int]) -> Iterator[Exception | None]:
    """Runs one schedule after the other; gives what each raised, or None."""
    for seed in seeds:
        try:
            run_schedule(seed)
        except Exception as error:
            yield error
        else:
            yield None


def _simulate(random: Random, seed: int) -> None:
    devices = random.choice((1, 1, 1, 2, 3))
    chunk_bytes = random.choice((64, 128, 256, 512, 1024, 4096))
    lazy = random.random() < 0.9
    kind = random.choices(("alone", "failing", "threads"), (90, 8, 2))[0]
    programs: list[Program] = []
    with simulated(
        seed,
        devices=devices,
        lazy=lazy,
        chunk_bytes=chunk_bytes,
        device_bytes=chunk_bytes * random.randint(1, 4),
        pinned=random.random() < 0.75,
    ) as sim:
        try:
            for _ in range(2 if kind == "threads" else 1):
                failing = kind == "failing"
                programs.append(Program(sim, Random(random.random()), devices=devices, chunk_bytes=chunk_bytes, failing=failing))
            if kind == "threads":
                _run_together(programs)
            else:
                if kind == "failing":
                    _let_fail(sim, random)
                programs[0].run()
            sim.drain()
            for program in programs:
                program.check()
        finally:
            for program in programs:
                program.forget()


def _let_fail(sim: Simulator, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        entry = random.choice([entry for entry in ENTRIES if entry not in _NEVER_FAIL])
        sim.fail(entry, random.randint(1, 30))


def _run_together(programs: list[Program]) -> None:
    problems: list[BaseException] = []

    def work(program: Program) -> None:
        try:
            program.run()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def _in_use() -> dict[str, Any]:
    return {"host": _core.pool_stats()["used_bytes"], "pinned": _core.cuda_stats()["pinned"]["used_bytes"]}
