"""The walk of a nest: it finds what is recorded. That what is recorded keeps its type: `test_snapshot.py`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from helpers import record, tensors_in
from nntap import nest
from strategies import Source, nests

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # torch says so once


@given(nests())
def test_the_walk_finds_every_tensor_that_is_recorded(made: tuple[Any, list[Source]]) -> None:
    value, _ = made
    found = list(nest.tensors_in(value))
    assert sorted(map(id, found)) == sorted(map(id, tensors_in(value)))
    read, stats = record(value)
    assert len(list(nest.tensors_in(read))) == stats.records + sum(stats.slow.values())
