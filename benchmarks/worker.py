"""One case in a process of its own, which neither the memory nor the patches of another case have touched."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

PROGRESS = "progress"


@dataclass(frozen=True)
class Settings:
    """How everything is measured.

    `scale` multiplies the time that each case may take. `clock` is one of `timer.CLOCKS`.
    """

    device: str = "cpu"
    threads: int | None = None
    clock: str = "wall"
    scale: float = 1.0


def measure(
    key: str, settings: Settings, seed: int, progress: Callable[[int, int], object] = lambda done, of: None
) -> dict[str, Any]:
    """Everything about one case that is measured, ready for JSON. ``{"no_model": reason}`` where it has none."""
    import torch

    from benchmarks import cases, machine, memory
    from benchmarks.audit import audit
    from benchmarks.contestants import BARE
    from benchmarks.models import Unsuited
    from benchmarks.timer import CLOCKS, Rounds, Timer

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    case = cases.find(key)
    try:
        subject = case.subject(settings.device)
    except Unsuited as reason:
        return {"no_model": str(reason)}
    request = case.request(subject)
    ways, skipped = _ways(case, subject, request)
    clock = CLOCKS[settings.clock]
    timer = Timer(machine.synchroniser(settings.device), clock, seed=seed)
    rounds = Rounds(case.budget_seconds * settings.scale)
    with torch.no_grad():
        seconds = timer.measure(_timed(ways), rounds, progress)
        # From here on, off the clock: clones leave an allocator with memory that it need not ask for again.
        peaks = {}
        for name, way in ways.items():
            with way.around():
                peaks[name] = asdict(memory.peak_of(way.run, settings.device))
    recorders = {name: way for name, way in ways.items() if name != BARE}
    return {
        "model": subject.name,
        "modules": None if request.modules is None else len(request.modules),
        "dtype": None if request.dtype is None else str(request.dtype).removeprefix("torch."),
        "seconds": seconds,
        "skipped": skipped,
        "audits": {name: asdict(audit(way, request)) for name, way in recorders.items()},
        "in_place": _audits_in_place(case, settings.device, request),
        "memory": peaks,
        "peak": _peak(settings.device, request, clock),
    }


def floor_of(name: str) -> str:
    """The name of a contestant's own bare run, where it has one."""
    return f"{name}: its own bare run"


def _ways(case: Any, subject: Any, request: Any) -> tuple[dict[str, Any], dict[str, str]]:
    from benchmarks.contestants import CONTESTANTS
    from benchmarks.models import Unsuited

    ways, skipped = {}, {}
    for contestant in CONTESTANTS:
        if contestant.name not in case.contestants:
            continue
        try:
            ways[contestant.name] = contestant.way(subject, request)
        except Unsuited as reason:
            skipped[contestant.name] = str(reason)
    return ways, skipped


def _timed(ways: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.timer import Timed

    things = {name: Timed(way.run, way.around) for name, way in ways.items()}
    floors = {floor_of(name): Timed(way.floor) for name, way in ways.items() if way.floor is not None}
    return things | floors


def _audits_in_place(case: Any, device: str, request: Any) -> dict[str, Any]:
    """The same request of a model whose modules overwrite each other's outputs."""
    from benchmarks import models
    from benchmarks.audit import audit
    from benchmarks.contestants import BARE

    subject = models.in_place(device)
    modules = subject.layers if request.modules is not None else None
    ways, _ = _ways(case, subject, replace(request, modules=modules))
    return {name: asdict(audit(way, replace(request, modules=modules))) for name, way in ways.items() if name != BARE}


def _peak(device: str, request: Any, clock: Callable[[], float]) -> list[tuple[int, float]]:
    from benchmarks import peaks

    if device == "cuda":
        return peaks.link(clock) if request.device == "cpu" else peaks.device_copies(clock)
    return peaks.host_copies(clock)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("case")
    parser.add_argument("settings", help="JSON")
    parser.add_argument("seed", type=int)
    options = parser.parse_args(arguments)
    _quiet()

    def tell(done: int, of: int) -> None:
        print(PROGRESS, done, of, flush=True)

    measured = measure(options.case, Settings(**json.loads(options.settings)), options.seed, tell)
    print(json.dumps(measured), flush=True)
    return 0


def _quiet() -> None:
    """What libraries say about configs and submodule names when they are loaded is no result."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
