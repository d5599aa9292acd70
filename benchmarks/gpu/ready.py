"""``python -m benchmarks.gpu.ready``: whether ``gpu_check.sh`` can run here. Exits 0, without a GPU 3, else 1."""

from __future__ import annotations

import sys
from importlib import import_module

NEEDED = {
    "hypothesis": "hypothesis>=6.100",
    "nnsight": "nnsight>=0.6.3,<0.9",
    "nntap": "nntap",
    "pytest": "pytest>=8",
    "pytest_timeout": "pytest-timeout>=2.3",
    "rich": "rich>=13",
    "torch": "torch>=2.4",
    "transformers": "transformers>=4.57",
}
"""What the tests and the benchmarks import, and what pip calls it."""

NO_GPU = 3


def main() -> int:
    missing = {"torch": why} if (why := why_not("torch")) else {}
    if not missing and not _gpu():
        print("not run: torch finds no GPU here")
        return NO_GPU
    missing |= {module: why for module in NEEDED if module != "torch" and (why := why_not(module))}
    for module, why in missing.items():
        print(f"cannot be imported: {module} ({why})")
    if missing:
        print("how to fix: pip install " + " ".join(f'"{NEEDED[module]}"' for module in missing))
    return 1 if missing else 0


def why_not(module: str) -> str:
    """The error of importing it, which may be about something that it needs; empty where it works."""
    try:
        import_module(module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
