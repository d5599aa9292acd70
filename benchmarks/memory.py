"""The most memory that a run holds more than the process had before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import nntap

STATUS = Path("/proc/self/status")
FORGET_PEAK = Path("/proc/self/clear_refs"), "5"


@dataclass(frozen=True)
class PeakMemory:
    """Bytes; None where they cannot be measured."""

    host: int | None
    device: int | None


def peak_of(run: Callable[[], Any], device: str) -> PeakMemory:
    """Runs once, from a process that has given back all memory it can, nntap's pools included."""
    gc.collect()
    nntap.trim()
    _trim_malloc()
    can = _forget_peak()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        device_before = torch.cuda.memory_allocated()
    before = _status("VmRSS")
    made = run()
    if device == "cuda":
        torch.cuda.synchronize()
    host = _status("VmHWM") - before if can else None
    del made
    return PeakMemory(host, torch.cuda.max_memory_allocated() - device_before if device == "cuda" else None)


def _forget_peak() -> bool:
    path, what = FORGET_PEAK
    try:
        path.write_text(what)
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _trim_malloc() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # a C library without it
        return
