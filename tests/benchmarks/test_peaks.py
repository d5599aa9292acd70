"""What no copy can be faster than."""

from __future__ import annotations

import time

import pytest
from benchmarks.models import Unsuited

from benchmarks import instructions, peaks


def test_small_copies_are_taken_to_be_as_fast_as_larger_ones():
    assert peaks.falling([(1, 3.0), (2, 9.0), (4, 5.0)]) == [(1, 9.0), (2, 9.0), (4, 5.0)]


def test_the_rate_of_a_size_is_that_of_the_largest_measured_size_below_it():
    curve = [(4, 9.0), (16, 5.0)]
    assert [peaks.rate_at(size, curve) for size in (1, 4, 15, 16, 1000)] == [9.0, 9.0, 9.0, 5.0, 5.0]


def test_the_least_time_is_that_of_all_pieces():
    assert peaks.least_seconds([8, 20], [(4, 4.0), (16, 5.0)]) == 8 / 4.0 + 20 / 5.0


def test_this_machine_copies_at_some_rate(monkeypatch):
    monkeypatch.setattr(peaks, "SIZES", (4096, 1 << 20))
    monkeypatch.setattr(peaks, "SECONDS_A_SIZE", 0.0)
    curve = peaks.host_copies(time.perf_counter)
    assert [size for size, _ in curve] == [4096, 1 << 20]
    assert curve[0][1] >= curve[1][1] > 0


def test_instructions_are_those_a_module_adds():
    counts = {"bare": 640, "capture": 64_640, "bare under nnsight": 0, "nnsight on nntap": 128, "nnsight's own": 6400}
    found = instructions.per_module(counts.__getitem__)
    assert found == {"nntap.capture": 1000, "tracer.cache() on nntap": 2, "tracer.cache() of nnsight": 100}


def test_without_valgrind_there_are_none(monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: None)
    with pytest.raises(Unsuited, match="valgrind is not installed"):
        instructions.per_module()


def test_the_total_is_read_from_callgrinds_file():
    assert instructions.total("version: 1\nsummary: 0\nfn=(1)\n12 3\ntotals: 1519734\n") == 1519734


def test_every_way_that_is_counted_runs():
    from benchmarks import hook_path

    chain = hook_path.Chain()
    runs = hook_path._runs(chain, hook_path.torch.zeros(1))
    assert set(runs) == set(hook_path.WAYS) == {way for pair in instructions.PAIRS.values() for way in pair}
    for run in runs.values():
        run()
