"""Random schedules over the whole stack, on the simulated driver: every record is what its module gave back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import assert_script_runs
from nntap.testing import schedules, simulated, trace_programs
from nntap.testing.ballast import tight_host
from nntap.testing.model_programs import ModelProgram
from nntap.testing.reader import Reader
from nntap.testing.schedules import kind_of, main, run_schedule, run_schedules
from nntap.testing.trace_programs import RowWatch, TraceProgram
from nntap.testing.watch import WrongValue

SCHEDULES = 20_000
BATCH = 1_000
KINDS = {"plain": 900, "reader": 50, "model": 25, "trace": 25}  # in each batch


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
        again = " ".join(map(str, failed))
        raise AssertionError(f"python -m nntap.testing.schedules {again}\nthe first: {next(iter(failed.values()))!r}")
    assert Counter(map(kind_of, seeds)) == KINDS


# ---- what the kinds other than the plain one come to ----


def test_runs_of_real_models_end_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: set[tuple[str, str]] = set()
    for kind in (ModelProgram, TraceProgram):
        monkeypatch.setattr(kind, "run_model", _noted(kind.run_model, ends))
    assert not [error for error in run_schedules(range(19, 3219, 20)) if error is not None]
    for name in ("ModelProgram", "TraceProgram"):
        assert {(name, ""), (name, "Stop"), (name, "CudaError"), (name, "HostMemoryError")} <= ends
    assert ("a stall", "HostMemoryError") in ends  # which of them end well, the machine decides


def _noted(run_model: Any, ends: set[tuple[str, str]]) -> Any:
    def noted(self: ModelProgram, given: Any) -> None:
        before, end = _stalls(self), ""
        try:
            run_model(self, given)
        except Exception as error:
            end = type(error).__name__
            raise
        finally:
            ends.add((type(self).__name__, end))
            if _stalls(self) > before:
                ends.add(("a stall", end))

    return noted


def _stalls(program: ModelProgram) -> int:
    return sum(watch.cache.stats.stalls for watch in program.watches if isinstance(watch.cache, nntap.Cache))


def test_a_reader_that_nobody_asks_ends_a_stall() -> None:
    values = torch.arange(2000.0)  # more than is left
    with tight_host(4 << 10, wait_seconds=30) as spare, simulated(pinned=False, chunk_bytes=64):
        reader = Reader(Random(0), list, (), spare)
        reader._in_turns = False
        model = nn.Identity()
        with reader, nntap.capture(model) as cache:
            model(values)
        assert cache.stats.stalls == 1
        assert torch.equal(cache[""].output, values)


@pytest.mark.parametrize("end", ["raise", "stop"])
def test_what_was_recorded_before_a_traced_run_gives_up_is_compared(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    usual = TraceProgram.check

    def check(self: TraceProgram) -> None:
        compared.extend(len(watch.kept) for watch in self.stopped)
        usual(self)

    monkeypatch.setattr(TraceProgram, "check", check)
    monkeypatch.setattr(TraceProgram, "_some_edits", lambda self, _: [(self.subject.places[2], end)])
    for seed in range(39, 439, 40):
        run_schedule(seed)
    assert sum(compared) > 0


def test_traced_runs_are_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    usual = TraceProgram.check

    def check(self: TraceProgram) -> None:
        usual(self)
        for watch in self.stopped:
            kind = "rows" if isinstance(watch, RowWatch) else "all"
            seen.update({f"{kind}, {len(visits)} visits": len(watch.kept) for visits in watch.expected.values()})

    monkeypatch.setattr(TraceProgram, "check", check)
    assert not [error for error in run_schedules(range(39, 1639, 40)) if error is not None]
    assert set(seen) >= {"rows, 1 visits", "all, 1 visits", "all, 3 visits"}


def test_an_invoke_that_sees_all_rows_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowWatch, "_mine", lambda self, nest: nest)
    errors = run_schedules(range(39, 839, 40))
    assert any(isinstance(error, WrongValue) and "instead of a tensor" in str(error) for error in errors)


@pytest.mark.parametrize("kind", [ModelProgram, TraceProgram])
def test_a_wrong_truth_is_noticed(kind: type[ModelProgram], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = kind.run_model

    def run_model(self: ModelProgram, given: Any) -> None:
        usual(self, given)
        for watch in self.watches:
            for visits in watch.expected.values():
                visits[-1].output = torch.full((3,), 7.0)

    monkeypatch.setattr(kind, "run_model", run_model)
    seeds = range(39 if kind is TraceProgram else 19, 400, 40)
    assert any("instead of a tensor (3,)" in str(error) for error in run_schedules(seeds))


def test_a_seed_gives_one_schedule_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    usual = schedules._program

    def noted(kind: Any, sim: Any, random: Any, *rest: Any) -> Any:
        made.append((kind, random.getstate()))
        return usual(kind, sim, random, *rest)

    monkeypatch.setattr(schedules, "_program", noted)
    for seed in 2 * [7, 9, 19, 39]:
        run_schedule(seed)
    assert made[:4] == made[4:]
    assert [kind for kind, _ in made[:4]] == list(KINDS)


# ---- the command, and what is not installed ----


def test_the_command_says_what_each_seed_came_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["7", "39"]) == 0
    assert capsys.readouterr().out == "7 (plain): right\n39 (trace): right\n"
    monkeypatch.setattr(trace_programs, "_trace", lambda *_: 1 / 0)
    assert main(["39"]) == 1
    assert "39 (trace): ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize("version", [None, "0.7.0"])
def test_without_a_release_of_nnsight_that_fits_its_kind_is_left_out(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(schedules.metadata, "version", found)
    schedules._nnsight_fits.cache_clear()
    assert kind_of(39) == "model"
    monkeypatch.undo()
    schedules._nnsight_fits.cache_clear()
    assert kind_of(39) == "trace"


def test_schedules_run_where_transformers_and_nnsight_cannot_be_imported() -> None:
    assert_script_runs(
        """
        import sys

        class Refusing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("nnsight", "transformers"):
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Refusing())
        import importlib.util
        usual = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "transformers" else usual(name, *rest)
        import nntap.testing.schedules as schedules
        schedules._nnsight_fits = lambda: False
        for error in schedules.run_schedules((7, 9, 19, 39, 59)):
            assert error is None
        """
    )
