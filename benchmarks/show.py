"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping


def megabytes(size: float) -> str:
    if size >= 2**20:
        return f"{size / 2**20:.0f} MiB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MiB"
    return f"{size / 2**10:.0f} KiB"


def milliseconds(seconds: float) -> str:
    """Three digits: 0.512 ms, 51.2 ms, 5120 ms."""
    value = seconds * 1e3
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{places}f} ms"


def ratio(spread: Mapping[str, float] | None) -> str:
    """The ratio and its quartiles, or why there is none."""
    if spread is None:
        return "within noise"
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
