"""One case in a process of its own, which neither the memory nor the patches of another case have touched."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    """Seconds and audits of every contestant of the case, ready for JSON."""
    import torch

    from benchmarks import machine
    from benchmarks.audit import audit
    from benchmarks.cases import CASES
    from benchmarks.contestants import BARE, CONTESTANTS, Way
    from benchmarks.models import Unsuited
    from benchmarks.timer import CLOCKS, Rounds, Timed, Timer

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    case = next(case for case in CASES if case.key == key)
    subject = case.subject(settings.device)
    request = case.request(subject)
    ways: dict[str, Way] = {}
    skipped: dict[str, str] = {}
    for contestant in CONTESTANTS:
        if contestant.name not in case.contestants:
            continue
        try:
            ways[contestant.name] = contestant.way(subject, request)
        except Unsuited as reason:
            skipped[contestant.name] = str(reason)
    timer = Timer(machine.synchroniser(settings.device), CLOCKS[settings.clock], seed=seed)
    with torch.no_grad():
        seconds = timer.measure(
            {name: Timed(way.run, way.around) for name, way in ways.items()},
            Rounds(case.budget_seconds * settings.scale),
            progress,
        )
    # After the clock: the clones leave the allocator with memory that it has already been given.
    audits = {name: asdict(audit(way, request)) for name, way in ways.items() if name != BARE}
    return {
        "model": subject.name,
        "modules": len(request.modules or subject.module_paths()),
        "dtype": None if request.dtype is None else str(request.dtype).removeprefix("torch."),
        "seconds": seconds,
        "audits": audits,
        "skipped": skipped,
    }


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
