"""What calls of the driver take on this machine: what the engine's sizes and orders of calls rest on."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.setting import GIB, registered, synchronise

MIB = 1 << 20
CALLS = 300


def probe(device: torch.device) -> dict[str, Any]:
    """Seconds of single calls, and the rates of a copy in pieces; nothing on a CPU. Takes a few seconds.

    Launches are timed on the host, as the model meets them: `worst` is what one launch waited for at most.
    """
    if device.type != "cuda":
        return {}
    tensor = torch.zeros(1, device=device)
    event = torch.cuda.Event()
    event.record()
    synchronise(device)
    return {
        "launch": seconds_of(lambda: tensor.add_(1)),
        "event_query": seconds_of(event.query),
        "memory_info": seconds_of(torch.cuda.mem_get_info),
        "pin_1_gib": pinning(lambda: tensor.add_(1)),
        "copy_gb_per_s_by_piece_mib": {mib: copied(device, mib * MIB) / 1e9 for mib in (1, 16, 32, 64, 1024)},
    }


def seconds_of(
    call: Callable[[], object], goes_on: Callable[[int], bool] = lambda calls: calls < CALLS
) -> dict[str, float]:
    """The median and the worst of some calls, in seconds."""
    samples: list[float] = []
    while goes_on(len(samples)):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return {"median": statistics.median(samples), "worst": max(samples)}


def pinning(launch: Callable[[], object], nbytes: int = GIB) -> dict[str, Any]:
    """Seconds to pin memory and to give it back, and of launches on another thread meanwhile."""
    times: list[float] = []

    def pin() -> None:
        with registered(nbytes, ready=lambda: times.append(time.perf_counter())):
            times.append(time.perf_counter())
        times.append(time.perf_counter())

    thread = threading.Thread(target=pin)
    thread.start()
    launches = seconds_of(launch, lambda calls: calls == 0 or thread.is_alive())
    thread.join()
    touched, pinned, over = times
    return {"register": pinned - touched, "unregister": over - pinned, "launch_meanwhile": launches}


def copied(device: torch.device, piece: int, nbytes: int = GIB) -> float:
    """Bytes a second of copies to pinned memory, one after the other, each of `piece` bytes."""
    source = torch.empty(nbytes, dtype=torch.uint8, device=device)
    target = torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    pieces = list(zip(target.split(piece), source.split(piece), strict=True))
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        for to, origin in pieces:
            to.copy_(origin, non_blocking=True)
        synchronise(device)
        rates.append(nbytes / (time.perf_counter() - start))
    return statistics.median(rates[1:])  # the first one warms up
