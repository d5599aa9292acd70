"""Measure cases, each in processes of its own, and put together what they measured."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import machine, peaks
from benchmarks.cases import Case
from benchmarks.contestants import BARE, CAPTURE, CONTESTANTS, NNSIGHTS, OURS, save_among
from benchmarks.timer import Spread, added, ratio_of_added
from benchmarks.worker import PROGRESS, Settings, floor_of

SCHEMA = 1

Progress = Callable[[str, float], object]
"""Told what is being measured, and which part of everything is done."""


class BrokenCase(Exception):
    """A contestant failed."""


def measure(cases: Sequence[Case], settings: Settings, processes: int, progress: Progress) -> dict[str, Any]:
    """The whole result, ready for JSON.

    Each case is measured in `processes` processes, one after the other: what memory an allocator keeps is decided by
    what happened in a process before, and differs from one to the next.
    """
    done = []
    for index, case in enumerate(cases):

        def tell(part: float, case: Case = case, before: int = index) -> None:
            progress(case.title, (before + part) / len(cases))

        try:
            done.append(joined(case, _measure_case(case, settings, processes, tell)))
        except BrokenCase as broken:
            done.append(_header(case) | {"broken": str(broken)})
    return {
        "schema": SCHEMA,
        "machine": machine.facts(settings.device, settings.threads),
        "settings": asdict(settings) | {"processes": processes},
        "cases": done,
    }


def _measure_case(
    case: Case, settings: Settings, processes: int, tell: Callable[[float], object]
) -> list[dict[str, Any]]:
    parts = []
    for process in range(processes):

        def tell_all(part: float, before: int = process) -> None:
            tell((before + part) / processes)

        tell_all(0.0)
        parts.append(_measure_in_process(case, settings, process, tell_all))
    return parts


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
        raise BrokenCase(f"a contestant failed (exit code {worker.returncode}); its error is above")
    return json.loads(last)  # type: ignore[no-any-return]


def joined(case: Case, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A case's entry in the result, from what its processes measured."""
    first = parts[0]
    if "no_model" in first:
        return _header(case) | {"skipped": first["no_model"]}
    seconds = {name: [value for part in parts for value in part["seconds"][name]] for name in first["seconds"]}
    curve = [(size, max(part["peak"][index][1] for part in parts)) for index, (size, _) in enumerate(first["peak"])]
    names = [contestant.name for contestant in CONTESTANTS if contestant.name in case.contestants]
    rows = [
        {"contestant": name, "skipped": first["skipped"][name]}
        if name in first["skipped"]
        else _row(name, seconds, first, curve)
        for name in names
    ]
    return _header(case) | {
        **{key: first[key] for key in ("model", "modules", "dtype")},
        "rounds": len(seconds[BARE]),
        "peak": curve,
        "rows": rows,
    }


def _header(case: Case) -> dict[str, Any]:
    return {
        "case": case.key,
        "title": case.title,
        "headline": case.headline,
        "steps": case.steps,
        "rows": [],
    }


def _row(name: str, seconds: dict[str, list[float]], first: dict[str, Any], curve: peaks.Curve) -> dict[str, Any]:
    row: dict[str, Any] = {
        "contestant": name,
        "seconds": asdict(Spread.of(seconds[name])),
        "peak_host_bytes": first["memory"][name]["host"],
        "peak_device_bytes": first["memory"][name]["device"],
    }
    if name == BARE:
        return row
    floor = seconds.get(floor_of(name), seconds[BARE])
    audited = first["audits"][name]
    least = peaks.least_seconds(audited["moved_sizes"], curve)
    more = added(seconds[name], floor)
    return row | {
        "added": asdict(more),
        "of_nnsight": _ratio(seconds, name, NNSIGHTS),
        "of_save": _ratio(seconds, name, save_among(seconds)),
        "nntap_of_it": _ratio(seconds, CAPTURE, name),
        **{key: audited[key] for key in ("right", "wrong", "missing", "bytes_recorded", "bytes_moved")},
        "bytes_a_second": audited["bytes_moved"] / more.median if audited["bytes_moved"] and more.low > 0 else None,
        "of_peak": least / more.median if audited["bytes_moved"] and more.low > 0 else None,
        "impossible": faster_than_the_peak(seconds[name], floor, least),
        "right_in_place": _share_right(first["in_place"].get(name)),
    }


def _ratio(seconds: dict[str, list[float]], name: str, other: str) -> dict[str, float] | None:
    if name == other or not {name, other} <= set(seconds) or floor_of(other) in seconds:
        return None
    ratio = ratio_of_added(seconds[name], seconds[other], seconds[BARE])
    return None if ratio is None else asdict(ratio)


def faster_than_the_peak(own: Sequence[float], floor: Sequence[float], least_seconds: float) -> bool:
    """Whether what was added is less than what copying the same bytes at the peak takes.

    That cannot be, and is a mistake of the benchmark's: a clock that stopped too early, bytes counted that were not
    moved. Where the floor itself varies by more than the copy takes, nothing can be said.
    """
    noise = Spread.of(floor)
    if least_seconds < 2 * (noise.high - noise.low):
        return False
    more = [mine - bare for mine, bare in zip(own, floor, strict=True)]
    return statistics.quantiles(more, n=20, method="inclusive")[-1] < least_seconds


def _share_right(audited: dict[str, Any] | None) -> float | None:
    if audited is None:
        return None
    whole = audited["right"] + audited["wrong"] + audited["missing"]
    return audited["right"] / whole if whole else None


def complaints(result: dict[str, Any]) -> Iterator[str]:
    """What must not be in a result: a broken case, wrong records of nntap's, figures above the peak."""
    for case in result["cases"]:
        if "broken" in case:
            yield f"{case['case']}: {case['broken']}"
        for row in case["rows"]:
            if "skipped" in row or row["contestant"] == BARE:
                continue
            where = f"{case['case']}, {row['contestant']}"
            if row["impossible"]:
                yield f"{where}: copied faster than this machine can; the benchmark is wrong"
            if row["contestant"] in OURS and row["wrong"] + row["missing"]:
                yield f"{where}: {row['wrong']} wrong and {row['missing']} missing records"
            if row["contestant"] in OURS and row["right_in_place"] not in (None, 1.0):
                yield f"{where}: {row['right_in_place']:.0%} right on a model with in-place operations"
