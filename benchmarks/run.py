"""Measure cases, each in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.contestants import BARE, CONTESTANTS, NNSIGHTS
from benchmarks.timer import Spread, added, ratio_of_added
from benchmarks.worker import PROGRESS, Settings

SCHEMA = 1
PROCESSES = 3
"""How often a case is measured, each time in a new process: what an allocator keeps differs from one to the next."""

Progress = Callable[[str, float], object]
"""Told what is being measured, and which part of everything is done."""


class BrokenCase(Exception):
    """A contestant failed, or recorded something wrong that it must not."""


def measure(
    cases: Sequence[Case], settings: Settings, progress: Progress, processes: int = PROCESSES
) -> dict[str, Any]:
    """The whole result, ready for JSON."""
    done = []
    for index, case in enumerate(cases):
        parts = []
        for process in range(processes):

            def tell(part: float, case: Case = case, before: float = index * processes + process) -> None:
                progress(case.title, (before + part) / (len(cases) * processes))

            parts.append(_measure_in_process(case, settings, process, tell))
        done.append(joined(case, parts))
    return {
        "schema": SCHEMA,
        "machine": machine.facts(settings.device, settings.threads),
        "settings": asdict(settings) | {"processes": processes},
        "cases": done,
    }


def _measure_in_process(case: Case, settings: Settings, seed: int, tell: Callable[[float], object]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.worker", case.key, json.dumps(asdict(settings)), str(seed)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as worker:
        assert worker.stdout is not None
        last = ""
        for line in worker.stdout:
            if line.startswith(PROGRESS):
                _, part, whole = line.split()
                tell(int(part) / int(whole))
            else:
                last = line
    if worker.returncode != 0:
        raise BrokenCase(f"{case.key}: a contestant failed; its error is above")
    return json.loads(last)  # type: ignore[no-any-return]


def joined(case: Case, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A case's entry in the result, from what its processes measured."""
    first = parts[0]
    seconds = {name: [value for part in parts for value in part["seconds"][name]] for name in first["seconds"]}
    names = [contestant.name for contestant in CONTESTANTS if contestant.name in case.contestants]
    rows = [
        {"contestant": name, "skipped": first["skipped"][name]}
        if name in first["skipped"]
        else _row(name, seconds, first["audits"].get(name))
        for name in names
    ]
    return {
        "case": case.key,
        "title": case.title,
        **{key: first[key] for key in ("model", "modules", "dtype")},
        "headline": case.headline,
        "targets": dict(case.targets),
        "rounds": len(seconds[BARE]),
        "rows": rows,
    }


def _row(name: str, seconds: dict[str, list[float]], audited: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"contestant": name, "seconds": asdict(Spread.of(seconds[name]))}
    if audited is None:
        return row
    row["added"] = asdict(added(seconds[name], seconds[BARE]))
    if NNSIGHTS in seconds and name != NNSIGHTS:
        of_nnsight = ratio_of_added(seconds[name], seconds[NNSIGHTS], seconds[BARE])
        row["of_nnsight"] = None if of_nnsight is None else asdict(of_nnsight)
    return row | {key: value for key, value in audited.items() if key != "moved_sizes"}
