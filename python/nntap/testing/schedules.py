"""Random schedules: each is one random program on one random simulation, and all of it follows from a seed.

    python -m nntap.testing.schedules SEED [SEED ...]

runs those and prints what each came to.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from random import Random
from typing import Literal

import torch

from nntap import _core
from nntap.errors import CudaError, HostMemoryError
from nntap.testing.ballast import Ballast, tight_host
from nntap.testing.model_programs import ModelProgram
from nntap.testing.programs import Program
from nntap.testing.reader import ReadProgram
from nntap.testing.simulator import ENTRIES, Simulator, simulated

Kind = Literal["plain", "reader", "model", "trace"]
AnyProgram = Program | ModelProgram

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


def kind_of(seed: int) -> Kind:
    """What the seed's schedule runs: of forty one is under nnsight, where a release is installed that the programs are
    made for, one is another real model, and two have a second thread that reads."""
    if seed % 20 == 9:
        return "reader"
    if seed % 20 == 19:
        return "trace" if seed % 40 == 39 and _nnsight_fits() else "model"
    return "plain"


@cache
def _nnsight_fits() -> bool:
    try:
        return metadata.version("nnsight").startswith("0.8.")
    except metadata.PackageNotFoundError:
        return False


def _run(seed: int) -> None:
    before = bytes_in_use()
    random, kind = Random(seed), kind_of(seed)
    if kind == "plain":
        _simulate(random, seed, kind)
    else:
        _simulate_with_limits(random, seed, kind)
    after = bytes_in_use()
    if any(after[pool] > before[pool] for pool in before):  # less: what came from before this schedule
        raise Leak(f"bytes in use before and after: {before}, {after}")


def _simulate_with_limits(random: Random, seed: int, kind: Kind) -> None:
    gc.freeze()  # stalls collect garbage, of which nothing that was there before is any
    try:
        if random.random() < 0.5:
            with tight_host(random.choice((4, 16, 64)) << 10, random.choice((0, 0.05, 0.05))) as spare:
                _simulate(random, seed, kind, spare)
        else:
            _simulate(random, seed, kind)
    finally:
        gc.unfreeze()


def _simulate(random: Random, seed: int, kind: Kind, spare: list[torch.Tensor] | None = None) -> None:
    devices = random.choice((1, 1, 1, 2, 3))
    chunk_bytes = random.choice((64, 128, 256, 512, 1024, 4096))
    lazy = random.random() < 0.85
    course = random.choices(("alone", "failing", "threads"), (85, 13, 2))[0]
    programs: list[AnyProgram] = []
    with simulated(
        seed,
        devices=devices,
        lazy=lazy and kind in ("plain", "reader"),  # real models compute at once
        chunk_bytes=chunk_bytes,
        device_bytes=chunk_bytes * random.randint(1, 4),
        pinned=random.random() < (0.7 if spare is None else 0.3),
    ) as sim:
        try:
            for _ in range(2 if course == "threads" and kind == "plain" else 1):
                programs.append(_program(kind, sim, Random(random.random()), devices, chunk_bytes, spare))
                if course == "failing":
                    programs[-1].tolerated = (CudaError, HostMemoryError)
            if len(programs) > 1:
                _run_together(programs)
            else:
                if course == "failing":
                    _let_fail(sim, random)
                programs[0].run()
            sim.drain()
            for program in programs:
                program.check()
        finally:
            for program in programs:
                program.forget()


def _program(
    kind: Kind, sim: Simulator, random: Random, devices: int, chunk_bytes: int, spare: list[torch.Tensor] | None
) -> AnyProgram:
    if kind == "plain":
        return Program(sim, random, devices=devices, chunk_bytes=chunk_bytes)
    made: ReadProgram | ModelProgram
    if kind == "reader":
        made = ReadProgram(sim, random, devices=devices, chunk_bytes=chunk_bytes)
    elif kind == "model":
        made = ModelProgram(sim, random)
    else:
        from nntap.testing.trace_programs import TraceProgram  # imports nnsight

        made = TraceProgram(sim, random)
    if spare is not None:
        made.spare = spare
        made.tolerated = (HostMemoryError,)
    return made


def _let_fail(sim: Simulator, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        entries = _OFTEN_CALLED if random.random() < 0.6 else [entry for entry in ENTRIES if entry not in _NEVER_FAIL]
        sim.fail(random.choice(entries), random.randint(1, random.choice((3, 30))))


def _run_together(programs: list[AnyProgram]) -> None:
    problems: list[BaseException] = []

    def work(program: AnyProgram) -> None:
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nntap.testing.schedules", description=__doc__.split("\n")[0])
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED")
    seeds = parser.parse_args(arguments).seeds
    torch.set_num_threads(1)
    failed = False
    for seed, error in zip(seeds, run_schedules(seeds), strict=True):
        print(f"{seed} ({kind_of(seed)}): {'right' if error is None else repr(error)}")
        failed = failed or error is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
