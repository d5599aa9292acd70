"""`nntap.set_limits`: what it takes, and that nothing changes where it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nntap
from host_memory import SLAB


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        ({"host_bytes": SLAB - 1}, ValueError, [f"host_bytes={SLAB - 1}", "one slab", str(SLAB), "None"]),
        ({"host_bytes": 0}, ValueError, ["host_bytes=0", "one slab"]),
        ({"host_bytes": -5}, ValueError, ["host_bytes=-5", "one slab"]),
        ({"host_bytes": 1e9}, TypeError, ["host_bytes=1000000000.0", "whole number"]),
        ({"host_bytes": "4GiB"}, TypeError, ["host_bytes='4GiB'", "whole number"]),
        ({"host_bytes": np.array([1, 2])}, TypeError, ["host_bytes=array([1, 2])", "whole number"]),
        ({"host_bytes": True}, TypeError, ["host_bytes=True", "whole number"]),
        ({"wait_seconds": -1}, ValueError, ["wait_seconds=-1", "from 0 on"]),
        ({"wait_seconds": "long"}, TypeError, ["wait_seconds='long'", "seconds"]),
        ({"host_bytes": SLAB, "wait_seconds": -1}, ValueError, ["wait_seconds=-1"]),
        ({"host_bytes": 1, "wait_seconds": 3}, ValueError, ["host_bytes=1"]),
        ({"host_bytes": 2**70, "wait_seconds": 5}, ValueError, [f"host_bytes={2**70}", "at most 2**63 - 1", "None"]),
        ({"pinned_bytes": 2**63, "wait_seconds": 5}, ValueError, [f"pinned_bytes={2**63}", "at most 2**63 - 1"]),
        ({"device_bytes": 2**65, "host_bytes": SLAB}, ValueError, [f"device_bytes={2**65}", "at most 2**63 - 1"]),
        ({"wait_seconds": 10**400, "host_bytes": SLAB}, ValueError, ["wait_seconds=1000", "or math.inf"]),
        ({"wait_seconds": float("nan"), "host_bytes": SLAB}, ValueError, ["wait_seconds=nan", "from 0 on"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_limit_that_is_not_allowed_changes_nothing(
    limits: dict[str, Any], kind: type[Exception], says: list[str]
) -> None:
    before = nntap.pool_stats()
    with pytest.raises(kind) as caught:
        nntap.set_limits(**limits)
    for part in says:
        assert part in str(caught.value)
    assert nntap.pool_stats() == before


def test_a_limit_may_be_any_whole_number(limited: int) -> None:
    nntap.set_limits(host_bytes=np.int64(2 * SLAB))  # type: ignore[arg-type]
    assert nntap.pool_stats()["limit_bytes"] == 2 * SLAB


def test_what_is_not_given_stays_as_it_is() -> None:
    nntap.set_limits(host_bytes=SLAB, wait_seconds=5)
    nntap.set_limits(wait_seconds=6)
    assert [nntap.pool_stats()[name] for name in ("limit_bytes", "wait_seconds")] == [SLAB, 6]
    nntap.set_limits(host_bytes=None)
    assert [nntap.pool_stats()[name] for name in ("limit_bytes", "wait_seconds")] == [None, 6]
    nntap.set_limits(wait_seconds=30)


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [(5, ValueError, "device_bytes=5 is not allowed: give at least 1 MiB"), (None, TypeError, "device_bytes=None")],
)
def test_the_limit_of_gpu_memory_takes_no_none_and_offers_none(value: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        nntap.set_limits(device_bytes=value)
    assert "or None" not in str(caught.value)
