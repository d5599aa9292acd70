"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping


def size(count: float | None) -> str:
    """Bytes, to three digits."""
    if count is None:
        return ""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(count) >= unit:
            return f"{digits(count / unit)} {name}"
    return f"{count:.0f} B"


def milliseconds(seconds: float) -> str:
    return f"{digits(seconds * 1e3)} ms"


def digits(value: float) -> str:
    """Three of them: 0.512, 51.2, 5120."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f}"


def spread(ratio: Mapping[str, float] | None) -> str:
    """The ratio and its quartiles, or why there is none."""
    if ratio is None:
        return "within noise"
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
