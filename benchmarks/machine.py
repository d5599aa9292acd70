"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "nnsight", "transformers", "transformer-lens", "torchvision", "numpy")


def facts(device: str, threads: int | None = None) -> dict[str, Any]:
    """Plain values, ready for JSON. `device` is ``"cpu"`` or ``"cuda"``, `threads` those torch is given."""
    known: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "packages": {name: found for name in PACKAGES if (found := version(name)) is not None},
        "nntap": metadata.version("nntap"),
        "commit": _commit(),
        "device": device,
    }
    if device == "cuda":
        known |= _gpu()
    return known


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def synchroniser(device: str) -> Callable[[], object]:
    """What waits until a device has done all that it was given."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """The revision of the tree these benchmarks lie in; ``+`` where it has changes. Outside a clone what NNTAP_COMMIT
    says, if it is set."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("NNTAP_COMMIT")
    return done.stdout.strip()


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpus": torch.cuda.device_count(),
        "cuda_of_torch": torch.version.cuda,
    }
