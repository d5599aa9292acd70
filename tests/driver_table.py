"""The driver table as csrc/ declares it."""

from __future__ import annotations

import re
from pathlib import Path

DRIVER = Path(__file__).parents[1] / "csrc" / "device" / "cuda" / "driver.hpp"


def entries() -> dict[str, str]:
    """The exported symbol of each entry."""
    return dict(re.findall(r'X\((\w+), "(\w+)"', DRIVER.read_text()))
