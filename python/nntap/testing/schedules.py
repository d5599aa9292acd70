"""Random schedules: each is one random program on one random simulation, and all of it follows from a seed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

from nntap import _core
from nntap.testing.ballast import Ballast
from nntap.testing.programs import Program
from nntap.testing.simulator import ENTRIES, Simulator, simulated

_NEVER_FAIL = ("init", "driver_version", "error_name", "device_count")  # before anything is recorded, or the message


_OFTEN_CALLED = ("event_synchronize", "event_query", "event_record", "stream_wait_event", "copy_to_host", "launch")


class Leak(AssertionError):
    """Memory that did not come back."""


_TIGHT = 50  # seeds in a row with little pinned memory, and then as many with much


def run_schedules(seeds: Iterable[int]) -> Iterator[Exception | None]:
    """Runs one schedule after the other; each leaves nothing behind.

    Yields:
        What a schedule raised, or None: WrongValue if a record is not what its module gave back, AssertionError for a
        broken rule of CUDA or something that was not given back, CudaError if the engine fails where the driver does
        not (a deadlock, for one).
    """
    ballast = Ballast()
    try:
        for seed in seeds:
            if seed // _TIGHT % 2:
                ballast.hold()
            else:
                ballast.drop()
            try:
                _run(seed)
            except Exception as error:
                yield error
            else:
                yield None
    finally:
        ballast.drop()


def run_schedule(seed: int) -> None:
    """Runs one, and raises what it raised."""
    for error in run_schedules([seed]):
        if error is not None:
            raise error


def _run(seed: int) -> None:
    before = bytes_in_use()
    _simulate(Random(seed), seed)
    after = bytes_in_use()
    if any(after[pool] > before[pool] for pool in before):  # less: what came from before this schedule
        raise Leak(f"bytes in use before and after: {before}, {after}")


def _simulate(random: Random, seed: int) -> None:
    devices = random.choice((1, 1, 1, 2, 3))
    chunk_bytes = random.choice((64, 128, 256, 512, 1024, 4096))
    lazy = random.random() < 0.85
    kind = random.choices(("alone", "failing", "threads"), (85, 13, 2))[0]
    programs: list[Program] = []
    with simulated(
        seed,
        devices=devices,
        lazy=lazy,
        chunk_bytes=chunk_bytes,
        device_bytes=chunk_bytes * random.randint(1, 4),
        pinned=random.random() < 0.7,
    ) as sim:
        try:
            for _ in range(2 if kind == "threads" else 1):
                options: dict[str, Any] = {"devices": devices, "chunk_bytes": chunk_bytes, "failing": kind == "failing"}
                programs.append(Program(sim, Random(random.random()), **options))
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
        entries = _OFTEN_CALLED if random.random() < 0.6 else [entry for entry in ENTRIES if entry not in _NEVER_FAIL]
        sim.fail(random.choice(entries), random.randint(1, random.choice((3, 30))))


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


def bytes_in_use() -> dict[str, int]:
    """What records hold of host memory now, by pool."""
    return {"host": _core.pool_stats()["used_bytes"], "pinned": _core.cuda_stats()["pinned"]["used_bytes"]}
