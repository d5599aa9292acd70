"""``python -m benchmarks.gpu.note FILE TEXT``: adds a line to a result, and prints it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import results


def main(path: str, text: str) -> int:
    print(text)
    if Path(path).exists():  # the benchmarks may not have come so far
        result = results.load(Path(path))
        results.save({**result, "notes": [*result["notes"], text]}, Path(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
