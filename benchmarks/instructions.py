"""What recording a module costs in instructions: a figure that is the same on a busy machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.hook_path import MODULES
from benchmarks.models import Unsuited

PAIRS = {
    "nntap.capture": ("capture", "bare"),
    "tracer.cache() on nntap": ("nnsight on nntap", "bare under nnsight"),
    "tracer.cache() of nnsight": ("nnsight's own", "bare under nnsight"),
}
"""What is recorded, and the run without it that is taken off."""


def per_module(count: Callable[[str], int] | None = None) -> dict[str, float]:
    """Instructions that recording one small output adds, by contestant.

    Raises:
        Unsuited: where valgrind is not installed.
    """
    if count is None:
        count = _counter()
    pairs = {name: pair for name, pair in PAIRS.items() if "nnsight" not in pair[0] or find_spec("nnsight")}
    counts = {way: count(way) for way in dict.fromkeys(way for pair in pairs.values() for way in pair)}
    return {name: (counts[recorded] - counts[bare]) / MODULES for name, (recorded, bare) in pairs.items()}


def as_json(found: Mapping[str, float]) -> dict[str, Any]:
    return {"modules": MODULES, "instructions_a_module": dict(found)}


def _counter() -> Callable[[str], int]:
    for tool in ("valgrind", "callgrind_control"):
        if shutil.which(tool) is None:
            raise Unsuited(f"{tool} is not installed: apt-get install valgrind")
    return _count


def _count(way: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "--quiet"),
            *(sys.executable, "-m", "benchmarks.hook_path", way),
        ]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"counting the instructions of {way!r} failed: {done.stderr[-2000:]}")
        return total(out.read_text())


def total(callgrind_out: str) -> int:
    """Instructions of the whole file."""
    found = re.search(r"^totals: (\d+)", callgrind_out, re.M)
    if found is None:
        raise RuntimeError("callgrind's file has no totals")
    return int(found[1])
