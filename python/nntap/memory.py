"""The host memory that records live in: limits, what it holds, giving it back."""

from __future__ import annotations

from types import EllipsisType, NoneType
from typing import Any

from nntap import _core


def set_limits(*, host_bytes: int | EllipsisType | None = ..., wait_seconds: float | EllipsisType = ...) -> None:
    """Limits the host memory of records, for the whole process. What is not given stays as it is.

    Args:
        host_bytes: The most bytes of slabs the pool may hold, at least one slab (``pool_stats()["slab_bytes"]``).
            ``None`` removes the limit. When a record finds no room under it, the hook collects garbage and then,
            while other threads hold records that they could drop, waits (a stall, counted in ``cache.stats``); when
            nobody can free any it raises `HostMemoryError` at once.
        wait_seconds: The longest one stall may last, in seconds, before it raises `HostMemoryError`; 30 at the start.

    Raises:
        TypeError: If a limit is not a number.
        ValueError: If ``host_bytes`` is below one slab or ``wait_seconds`` is negative. No limit is changed then.
    """
    if isinstance(host_bytes, bool) or not isinstance(host_bytes, (int, NoneType, EllipsisType)):
        raise TypeError(f"host_bytes={host_bytes!r} is not allowed: give a whole number of bytes, or None")
    if isinstance(wait_seconds, bool) or not isinstance(wait_seconds, (int, float, EllipsisType)):
        raise TypeError(f"wait_seconds={wait_seconds!r} is not allowed: give a number of seconds")
    if isinstance(host_bytes, int) and host_bytes < 1:
        raise ValueError(f"host_bytes={host_bytes} is not allowed: give at least one slab, or None for no limit")
    before = _core.pool_stats()["limit_bytes"]
    if not isinstance(host_bytes, EllipsisType):
        _core.set_host_limit(host_bytes or 0)
    try:
        if not isinstance(wait_seconds, EllipsisType):
            _core.set_wait_seconds(wait_seconds)
    except ValueError:
        _core.set_host_limit(before)
        raise


def pool_stats() -> dict[str, Any]:
    """What the host pool holds now.

    Returns:
        ``slabs`` (a count), ``slab_bytes`` (the size of an ordinary slab), ``reserved_bytes`` (all slabs; what the
        limit counts), ``touched_bytes`` (of them, pages that exist), ``used_bytes`` (blocks that records live in),
        ``peak_bytes`` (the most that has been), ``limit_bytes`` (``None`` where there is none) and
        ``wait_seconds`` (the longest one stall may last).
    """
    stats = _core.pool_stats()
    stats["limit_bytes"] = stats["limit_bytes"] or None
    return stats


def trim() -> int:
    """Gives slabs in which no record lives back to the system. Returns their bytes."""
    return _core.trim()


def build_info() -> dict[str, Any]:
    """How the core was built and what it found on this machine.

    Returns:
        ``version``, ``compiler``, ``dlpack`` (the version of its header), ``cpu_casts`` (the instructions that casts
        on the CPU use) and ``devices`` (the kinds of device with a fast path).
    """
    return _core.build_info()
