"""Results as JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def save(result: dict[str, Any], path: Path) -> None:
    """Whoever reads the file finds the whole result, or the one that was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(_rounded(result), indent=1) + "\n")
    part.replace(path)


def committed() -> list[dict[str, Any]]:
    """Those of ``python -m benchmarks`` that lie in this repository."""
    return [result for result in _all() if "cases" in result]


def committed_of_gpus() -> list[dict[str, Any]]:
    """Those of ``python -m benchmarks.gpu``."""
    return [result for result in _all() if "link_gb_per_s" in result]


def _all() -> list[dict[str, Any]]:
    return [load(path) for path in sorted(FOLDER.glob("*.json"))]


def _rounded(value: Any) -> Any:
    """Floats with six significant digits: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
