"""Random schedules over the whole stack, on the simulated driver: every record is what its module gave back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from nntap.testing.schedules import run_schedules

SCHEDULES = 20_000
BATCH = 1_000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny operations are slower on several."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_every_record_is_what_its_module_gave_back(first: int) -> None:
    seeds = range(first, first + BATCH)
    failed = {seed: error for seed, error in zip(seeds, run_schedules(seeds), strict=True) if error is not None}
    if failed:
        raise AssertionError(f"seeds {list(failed)} fail; the first: {next(iter(failed.values()))!r}")
