"""Results as the suite writes them, made by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Case
from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP, Request
from benchmarks.models import in_place
from benchmarks.run import joined

MACHINE = {
    "cpu": "A processor",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "packages": {"torch": "2.13.0", "nnsight": "0.8.1"},
}
CURVE = [(4096, 40e9), (1 << 20, 10e9)]


def make_case(**changes: Any) -> Case:
    known = {
        "key": "a-case",
        "title": "what is recorded",
        "subject": lambda device: in_place(device),
        "request": lambda subject: Request(),
        "headline": True,
    }
    return Case(**{**known, **changes})


def make_audit(**changes: Any) -> dict[str, Any]:
    known = {
        "right": 3,
        "wrong": 0,
        "missing": 0,
        "bytes_recorded": 3 << 20,
        "bytes_moved": 3 << 20,
        "moved_sizes": [1 << 20] * 3,
    }
    return {**known, **changes}


def make_part(added: dict[str, float], audits: dict[str, Any] | None = None, rounds: int = 9) -> dict[str, Any]:
    """What one process measured: a bare run of 100 ms, and what each contestant adds to it, in seconds."""
    wobble = [0.0001 * (index % 3) for index in range(rounds)]
    seconds = {BARE: [0.1] * rounds} | {name: [0.1 + more + w for w in wobble] for name, more in added.items()}
    return {
        "model": "a model",
        "modules": None,
        "dtype": None,
        "seconds": seconds,
        "skipped": {"TraceDict": "it does not apply"},
        "audits": {name: make_audit() for name in added} | (audits or {}),
        "in_place": {name: make_audit() for name in added},
        "memory": {name: {"host": 4 << 20, "device": None} for name in seconds},
        "peak": CURVE,
    }


ADDED = {CAPTURE: 0.010, ON_NNTAP: 0.020, NNSIGHTS: 0.050}


def make_result(added: dict[str, float] | None = None, **changes: Any) -> dict[str, Any]:
    case = make_case(contestants=(BARE, CAPTURE, ON_NNTAP, NNSIGHTS, "TraceDict", *(added or {})))
    known = {
        "schema": 1,
        "machine": MACHINE,
        "settings": {"clock": "wall", "processes": 1},
        "cases": [joined(case, [make_part(ADDED | (added or {}))])],
    }
    return {**known, **changes}
