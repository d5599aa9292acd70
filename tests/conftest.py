"""What every test gets: no downloads, a seed, and a check that it left no limit and no open capture behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import pytest
import torch

import nntap
from host_memory import SLAB
from nntap import eager

# No deadline: how long an example takes is no property of the library. `--hypothesis-profile=thorough` looks longer.
hypothesis.settings.register_profile("nntap", deadline=None, max_examples=100, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=3000, print_blob=True)
hypothesis.settings.load_profile("nntap")


MOST_WORKERS = 8  # each has a torch of its own


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means. A GPU's memory is looked at by its tests, and so is for one process."""
    return 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, MOST_WORKERS)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_limit_is_left() -> Iterator[None]:
    """A limit that a test leaves would fail or hang another one."""
    before = limits()
    yield
    left = limits()
    nntap.set_limits(**before)
    assert left == before


def limits() -> dict[str, Any]:
    """All that `nntap.set_limits` sets, as its arguments."""
    stats = nntap.pool_stats()
    return {
        "host_bytes": stats["limit_bytes"],
        "wait_seconds": stats["wait_seconds"],
        "pinned_bytes": stats["pinned"]["limit_bytes"],
        "device_bytes": stats["device_limit_bytes"],
    }


@pytest.fixture(autouse=True)
def no_capture_is_left() -> Iterator[None]:
    """While a capture is open, compiled code runs eagerly in every test."""
    yield
    left = set(eager._captures)
    eager._captures.clear()
    eager.run_as_before(None)
    assert not left


@pytest.fixture
def limited() -> Iterator[int]:
    """A limit of one slab, in an empty pool."""
    gc.collect()
    nntap.trim()
    assert nntap.pool_stats()["reserved_bytes"] == 0, "a test kept records"
    nntap.set_limits(host_bytes=SLAB)
    yield SLAB
    nntap.set_limits(host_bytes=None, wait_seconds=30)
