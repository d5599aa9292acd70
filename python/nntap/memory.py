"""The host memory that records live in: limits, what it holds, giving it back."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import Any

from nntap import _core
from nntap.errors import HostMemoryError, brief

_MOST = 2**63 - 1  # what the core can count


def set_limits(
    *,
    host_bytes: int | EllipsisType | None = ...,
    wait_seconds: float | EllipsisType = ...,
    pinned_bytes: int | EllipsisType | None = ...,
    device_bytes: int | EllipsisType = ...,
) -> None:
    """Limits the memory of records, for the whole process. What is not given stays as it is.

    Args:
        host_bytes: The most bytes of slabs the pool of ordinary host memory may hold, at least one slab
            (``pool_stats()["slab_bytes"]``). ``None`` removes the limit. When a record finds no room under it, the hook
            waits while records of other captures exist and another thread lives that could drop them (a stall, counted
            in ``cache.stats``), and collects garbage once, after 50 ms or before it gives up. Where this capture
            holds all that is in use, or no other thread lives, it raises `HostMemoryError` without waiting. A record
            that is kept, however small, keeps its slab from going back to the system: clone what you keep for long.
        wait_seconds: The longest one stall may last, in seconds, before it raises `HostMemoryError`; 30 at the start.
            Time in which a GPU's own copies will make room does not count.
        pinned_bytes: The most bytes of pinned slabs, which records of CUDA tensors are copied into; at least one slab.
            ``None`` removes the limit; half of the machine's memory at the start. Past it, records pass through
            staging memory of 64 MiB into ordinary host memory.
        device_bytes: The most bytes of each GPU's memory that records pass through; 512 MiB at the start. Taken as
            needed. Where a burst of activations is larger, the model waits for the link, on the GPU. A lower limit
            holds from the next record on, for what has landed.

    Raises:
        TypeError: If a limit is not a number.
        ValueError: If ``host_bytes`` or ``pinned_bytes`` is below one slab, ``device_bytes`` below 1 MiB or
            ``wait_seconds`` negative, or one of them larger than can be counted. No limit is changed then.
    """
    slab = _core.pool_stats()["slab_bytes"]
    host_bytes = _checked_bytes("host_bytes", host_bytes, slab, "one slab", ", or None for no limit")
    pinned_bytes = _checked_bytes("pinned_bytes", pinned_bytes, slab, "one slab", ", or None for no limit")
    device_bytes = _checked_bytes("device_bytes", device_bytes, 1 << 20, "1 MiB")
    _check_seconds(wait_seconds)
    if not isinstance(host_bytes, EllipsisType):
        _core.set_host_limit(host_bytes or 0)
    if not isinstance(pinned_bytes, EllipsisType):
        _core.set_pinned_limit(pinned_bytes or 0)
    if not isinstance(device_bytes, EllipsisType):
        _core.set_device_limit(device_bytes)
    if not isinstance(wait_seconds, EllipsisType):
        _core.set_wait_seconds(wait_seconds)


def _checked_bytes(name: str, value: Any, least: int, least_in_words: str, or_none: str = "") -> Any:
    if isinstance(value, EllipsisType) or (value is None and or_none):
        return value
    whole = _whole(name, value, or_none)
    if whole < least:
        raise ValueError(f"{name}={whole} is not allowed: give at least {least_in_words} ({least}){or_none}")
    if whole > _MOST:
        raise ValueError(f"{name}={whole} is not allowed: give at most 2**63 - 1{or_none}")
    return whole


def _whole(name: str, value: Any, or_none: str = "") -> int:
    """The int, or the one that the value stands for, as NumPy's do."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name}={brief(value)} is not allowed: give a whole number of bytes{or_none}")


def _check_seconds(value: Any) -> None:
    if isinstance(value, EllipsisType):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"wait_seconds={value!r} is not allowed: give a number of seconds")
    if not value >= 0 or (isinstance(value, int) and value > _MOST):
        raise ValueError(f"wait_seconds={value} is not allowed: give a number from 0 on, or math.inf")


def reserve(nbytes: int) -> None:
    """Takes memory for that many bytes of records now, so that the first recording need not.

    Pinned memory where torch can use a GPU, whose current device is readied for recording; ordinary host memory
    otherwise.

    Args:
        nbytes: Bytes of records to come, as they will be recorded.

    Raises:
        TypeError: If it is not a whole number.
        ValueError: If it is negative.
        HostMemoryError: If the limit or the system does not allow it.
        CudaError: If the GPU cannot be used, or a CUDA graph is being captured.
    """
    nbytes = _whole("nbytes", nbytes)
    if nbytes < 0:
        raise ValueError(f"nbytes={nbytes} is not allowed: give a number from 0 on")
    pinned = _open_gpu()
    take = _core.reserve_pinned if pinned else _core.reserve_host
    if nbytes > _MOST or not take(nbytes):
        raise HostMemoryError(_refusal(nbytes, pinned))


def _refusal(nbytes: int, pinned: bool) -> str:
    pool, kind, name = pool_stats(), "host memory", "host_bytes"
    if pinned:
        pool, kind, name = pool["pinned"], "pinned memory", "pinned_bytes"
    limit = pool["limit_bytes"]
    shown = "none, the system refused" if limit is None else f"{limit} bytes"
    raise_it = "" if limit is None else f"raise the limit with nntap.set_limits({name}=...), "
    return (
        f"no {kind} for {nbytes} bytes of records. Taken: {pool['reserved_bytes']} bytes, of them {pool['used_bytes']} "
        f"by records; limit: {shown}. Reserve less, {raise_it}or free memory of this machine"
    )


def _open_gpu() -> bool:
    """Whether records will be pinned: a GPU, or a simulated one, is there and ready."""
    cuda = _core.cuda_info()
    if cuda["problem"] is not None:
        return False
    if cuda["simulated"]:
        return _core.open_cuda(0)
    import torch  # here: the rest of this works without

    return torch.cuda.is_available() and _core.open_cuda(torch.cuda.current_device())


def pool_stats() -> dict[str, Any]:
    """What the pools hold now, in bytes.

    Returns:
        Of ordinary host memory: ``slabs`` (a count), ``slab_bytes`` (the size of an ordinary slab), ``reserved_bytes``
        (all slabs; what the limit counts), ``touched_bytes`` (of them, pages that exist), ``used_bytes`` (blocks that
        records live in), ``peak_bytes`` (the most that has been), ``limit_bytes`` (``None`` where there is none) and
        ``wait_seconds`` (the longest one stall may last). ``pinned``: ``reserved_bytes``, ``used_bytes``,
        ``peak_bytes`` and ``limit_bytes`` of pinned memory. ``devices``: for each GPU that was recorded on ``device``
        (its number), ``chunk_bytes``, ``device_bytes`` (its memory that chunks take), ``peak_device_bytes``,
        ``copies`` and ``bytes_copied`` to the host, and ``gpu_waits`` (how often a stream waited for the link).
        ``device_limit_bytes``: of each GPU.
    """
    stats = _core.pool_stats()
    cuda = _core.cuda_stats()
    for pool in (stats, cuda["pinned"]):
        pool["limit_bytes"] = pool["limit_bytes"] or None
    return {**stats, **cuda, "device_limit_bytes": _core.device_limit()}


def trim() -> int:
    """Gives memory in which no record lives back to the system and to torch. Returns its bytes.

    Waits for the GPUs that may still be at it.

    Raises:
        CudaError: If a GPU reports an error.
    """
    return _core.trim() + _core.trim_cuda()
