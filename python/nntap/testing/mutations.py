"""Takes each ordering edge out of the CUDA engine, one at a time, and shows that the random schedules notice.

    python -m nntap.testing.mutations [--budget N] [--seed N] [--kind KIND] [EDGE ...]

Prints a table and exits with 1 if an edge is not missed within its budget of schedules, or if the engine as it is
fails one. Seeds make it repeatable, but for the few schedules whose threads run freely.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing.connection import Connection
from typing import Any, get_args

import torch

from nntap import _core
from nntap.errors import CudaError
from nntap.testing.schedules import Kind, Leak, kind_of, run_schedules
from nntap.testing.watch import WrongValue

BUDGET = 2000
HANG_SECONDS = 60.0

EDGES: dict[str, str] = _core.testing.edges()
"""What each ordering edge of the engine is, by its name."""


@dataclass(frozen=True)
class Result:
    """What came of the schedules without one edge, or (``edge == ""``) of those with all of them."""

    edge: str
    schedules: int
    """How many were run; the last one showed it, where one did."""
    shown_by: str | None
    """How it showed, or None."""

    @property
    def right(self) -> bool:
        return (self.shown_by is None) == (self.edge == "")


class Worker:
    """A process that runs schedules, as what an edge kept from happening may bring it down or hold it up."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, edge: str, seeds: Sequence[int]) -> Result:
        """Runs schedules without that edge until one fails. The worker may be dead afterwards."""
        self._ours.send((edge, seeds))
        done, budget = 0, len(seeds)
        try:
            while self._ours.poll(HANG_SECONDS):
                shown_by = self._ours.recv()
                done += 1
                if shown_by is not None or done == budget:
                    return Result(edge, done, shown_by)
        except (EOFError, ConnectionResetError):
            self._process.join()
            return Result(edge, done + 1, f"the process ended ({self._process.exitcode})")
        self.close()
        return Result(edge, done + 1, f"nothing happened for {HANG_SECONDS:.0f} seconds")

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._ours.close()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        edge, seeds = pipe.recv()
        _core.testing.remove_edge(edge)
        _hunt(pipe, seeds)
        _core.testing.remove_edge("")
        gc.collect()  # an error holds what the schedule recorded


def _hunt(pipe: Connection, seeds: Sequence[int]) -> None:
    for error in run_schedules(seeds):
        pipe.send(None if error is None else _described(error))
        if error is not None:
            return


def _described(error: BaseException) -> str:
    kinds: tuple[tuple[Any, str], ...] = (
        (WrongValue, "wrong value"),
        (Leak, "leak"),
        (CudaError, "error"),
        (AssertionError, ""),  # of the simulation, which says what it is
    )
    kind = next((name for each, name in kinds if isinstance(error, each)), type(error).__name__)
    first = str(error).split("\n")[0]
    return f"{kind}: {first}" if kind else first


def run_mutations(edges: Iterable[str], seeds: Sequence[int], show: Callable[[Result], None]) -> list[Result]:
    """The engine as it is, and then without each of the edges.

    Args:
        edges: Names from `EDGES`.
        seeds: Of the schedules that each gets at most.
        show: Called with each result as soon as it is there.
    """
    results = []
    worker = Worker()
    try:
        for edge in ("", *edges):
            if not worker.alive:
                worker = Worker()
            results.append(worker.run(edge, seeds))
            show(results[-1])
    finally:
        worker.close()
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nntap.testing.mutations", description=__doc__.split("\n")[0])
    parser.add_argument("edges", nargs="*", metavar="EDGE", help=f"all where not given: {', '.join(EDGES)}")
    parser.add_argument("--budget", type=int, default=BUDGET, help="most schedules for each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule (default %(default)s)")
    parser.add_argument("--kind", choices=get_args(Kind), help="only schedules of this kind (default: all kinds)")
    given = parser.parse_args(arguments)
    unknown = [edge for edge in given.edges if edge not in EDGES]
    if unknown:
        parser.error(f"the engine has no ordering edge {unknown[0]!r}: give some of {', '.join(EDGES)}")
    fitting = (seed for seed in count(given.seed) if given.kind in (None, kind_of(seed)))
    results = run_mutations(given.edges or EDGES, list(islice(fitting, given.budget)), _print_progress)
    _print_table(results)
    wrong = [result for result in results if not result.right]
    for result in wrong:
        what = "the engine as it is fails" if result.edge == "" else f"no schedule misses {result.edge}"
        print(f"{what}, within {result.schedules} schedules", file=sys.stderr)
    return 1 if wrong else 0


def _print_progress(result: Result) -> None:
    if sys.stderr.isatty():
        print(f"{result.edge or 'as it is'}: {result.schedules} schedules", file=sys.stderr)


def _print_table(results: list[Result]) -> None:
    head = ("without", "which is", "after", "it showed as")
    rows = [
        (each.edge or "nothing", EDGES.get(each.edge, "the engine as it is"), str(each.schedules), each.shown_by or "-")
        for each in results
    ]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for row in (head, *rows):
            print("  ".join(row))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main())
