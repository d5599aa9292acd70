"""What every test gets: no downloads, a seed, and a check that it left no memory limit behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import pytest
import torch

import nntap

# No deadline: how long an example takes is no property of the library. `--hypothesis-profile=thorough` looks longer.
hypothesis.settings.register_profile("nntap", deadline=None, max_examples=100, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=3000, print_blob=True)
hypothesis.settings.load_profile("nntap")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_limit_is_left() -> Iterator[None]:
    """A limit that a test leaves would fail or hang another one."""
    yield
    left = nntap.pool_stats()
    nntap.set_limits(host_bytes=None, wait_seconds=30)
    assert left["limit_bytes"] is None
    assert left["wait_seconds"] == 30
