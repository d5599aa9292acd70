"""Records of some MiB, and the slabs they lie in."""

from __future__ import annotations

import torch

import nntap
from helpers import Give

MIB = 1 << 20
SLAB = nntap.pool_stats()["slab_bytes"]


def filled(mib: int, value: float = 1.0) -> torch.Tensor:
    return torch.full((mib * MIB // 4,), value)


def recorded(mib: int, value: float = 1.0) -> nntap.Cache:
    """A cache with one record of that size."""
    model = Give(lambda: filled(mib, value))
    with nntap.capture(model) as cache:
        model()
    return cache
