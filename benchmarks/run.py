"""Measure cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import machine
from benchmarks.audit import Audit, audit
from benchmarks.cases import Case
from benchmarks.contestants import BARE, CONTESTANTS, NNSIGHTS, Contestant, Way
from benchmarks.models import Unsuited
from benchmarks.timer import Rounds, Timed, Timer, added, ratio_of_added

SCHEMA = 1

Progress = Callable[[str, int, int], object]
"""Told what is being done, how much of it is done, and of how much."""


def measure(cases: Sequence[Case], device: str, progress: Progress, scale: float = 1.0) -> dict[str, Any]:
    """The whole result, ready for JSON. `scale` multiplies the time that each case may take."""
    done = []
    for index, case in enumerate(cases):
        progress(case.title, index, len(cases))
        done.append(measure_case(case, device, progress, scale))
    return {"schema": SCHEMA, "machine": machine.facts(device), "cases": done}


def measure_case(case: Case, device: str, progress: Progress, scale: float) -> dict[str, Any]:
    subject = case.subject(device)
    request = case.request(subject)
    ways: dict[str, Way] = {}
    rows: list[dict[str, Any]] = []
    for contestant in _contestants(case):
        try:
            ways[contestant.name] = contestant.way(subject, request)
        except Unsuited as reason:
            rows.append({"contestant": contestant.name, "skipped": str(reason)})
    audits = {name: audit(way, request) for name, way in ways.items() if name != BARE}
    timer = Timer(machine.synchroniser(device))
    with torch.no_grad():
        seconds = timer.measure(
            {name: Timed(way.run, way.around) for name, way in ways.items()},
            Rounds(case.budget_seconds * scale),
            lambda done, of: progress(case.title, done, of),
        )
    measured = [_row(name, seconds, audits.get(name)) for name in ways]
    return {
        "case": case.key,
        "title": case.title,
        "model": subject.name,
        "modules": len(request.modules or subject.module_paths()),
        "dtype": None if request.dtype is None else str(request.dtype).removeprefix("torch."),
        "headline": case.headline,
        "targets": dict(case.targets),
        "rounds": len(seconds[BARE]),
        "rows": measured + rows,
    }


def _contestants(case: Case) -> list[Contestant]:
    return [contestant for contestant in CONTESTANTS if contestant.name in case.contestants]


def _row(name: str, seconds: dict[str, list[float]], audited: Audit | None) -> dict[str, Any]:
    from benchmarks.timer import Spread

    row: dict[str, Any] = {"contestant": name, "seconds": asdict(Spread.of(seconds[name]))}
    if audited is None:
        return row
    more = added(seconds[name], seconds[BARE])
    row["added"] = asdict(more)
    if NNSIGHTS in seconds and name != NNSIGHTS:
        of_nnsight = ratio_of_added(seconds[name], seconds[NNSIGHTS], seconds[BARE])
        row["of_nnsight"] = None if of_nnsight is None else asdict(of_nnsight)
    row |= {
        "bytes_recorded": audited.bytes_recorded,
        "bytes_moved": audited.bytes_moved,
        "right": audited.right,
        "wrong": audited.wrong,
        "missing": audited.missing,
    }
    return row
