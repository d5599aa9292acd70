"""Whether recording has become slower from one result to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import BARE, OURS

TOLERANCE = 0.15
SAME = ("cpu", "gpu", "cores", "threads", "device")


class NotComparable(Exception):
    """The results come from different machines or settings, or have no case in common."""


@dataclass(frozen=True)
class Change:
    """What a contestant adds in a case, in bare forwards, before and after.

    `verdict` is ``"slower"`` or ``"faster"`` where the quartiles do not touch and the medians differ by more than the
    tolerance, else ``"same"``.
    """

    case: str
    contestant: str
    before: float
    after: float
    verdict: str


def compare(before: dict[str, Any], after: dict[str, Any], tolerance: float = TOLERANCE) -> list[Change]:
    """nntap's contestants in the cases that both results have.

    Times are taken in bare forwards of the same result, so that a machine that is busier today is no regression.

    Raises:
        NotComparable: with the reason.
    """
    for name in SAME:
        old, new = before["machine"].get(name), after["machine"].get(name)
        if old != new:
            raise NotComparable(f"{name} differs: {old} and {new}")
    if before["settings"]["clock"] != after["settings"]["clock"]:
        raise NotComparable("they were measured by different clocks")
    found = list(_changes(before, after, tolerance))
    if not found:
        raise NotComparable("they have no case in common")
    return found


def _changes(before: dict[str, Any], after: dict[str, Any], tolerance: float) -> Iterator[Change]:
    old_cases = {case["case"]: _rows(case) for case in before["cases"]}
    for case in after["cases"]:
        old, new = old_cases.get(case["case"], {}), _rows(case)
        for name in OURS:
            if name in old and name in new:
                yield _change(case["case"], name, old, new, tolerance)


def _rows(case: dict[str, Any]) -> dict[str, Any]:
    return {row["contestant"]: row for row in case["rows"] if "skipped" not in row}


def _change(case: str, name: str, old: dict[str, Any], new: dict[str, Any], tolerance: float) -> Change:
    before, after = _in_bare_runs(old, name), _in_bare_runs(new, name)
    verdict = "same"
    if after["low"] > before["high"] and after["median"] > before["median"] * (1 + tolerance):
        verdict = "slower"
    if before["low"] > after["high"] and before["median"] > after["median"] * (1 + tolerance):
        verdict = "faster"
    return Change(case, name, before["median"], after["median"], verdict)


def _in_bare_runs(rows: dict[str, Any], name: str) -> dict[str, float]:
    bare = rows[BARE]["seconds"]["median"]
    return {key: value / bare for key, value in rows[name]["added"].items()}
