"""``python -m benchmarks.gpu.ready``: whether ``gpu_check.sh`` can run here. Exits 0, without a GPU 3, else 1."""

from __future__ import annotations

import sys
from importlib.util import find_spec

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
    missing = [requirement for module, requirement in NEEDED.items() if find_spec(module) is None]
    if NEEDED["torch"] not in missing and not _gpu():
        print("not run: torch finds no GPU here")
        return NO_GPU
    if missing:
        print(f"not installed: {', '.join(missing)}")
        print("how to fix: pip install " + " ".join(f'"{requirement}"' for requirement in missing))
        return 1
    return 0


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
