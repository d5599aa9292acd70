"""Each ordering edge of the engine taken out: the random schedules must notice."""

from __future__ import annotations

import pytest

from nntap.testing import mutations, schedules
from nntap.testing.mutations import EDGES, Result, main, run_mutations


@pytest.mark.slow
def test_every_edge_is_missed_by_some_schedule_and_the_engine_as_it_is_by_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(edge in shown for edge in EDGES)


def test_an_edge_that_nothing_misses_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    # The first schedule of all does not need it.
    assert main(["--budget", "1", "quarantine_records_side"]) == 1
    assert "no schedule misses quarantine_records_side, within 1 schedules" in capsys.readouterr().err


def test_an_engine_that_fails_as_it_is_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [Result("", 3, "wrong value: some"), Result("record_landed", 2, "wrong value: some")]
    monkeypatch.setattr(mutations, "run_mutations", lambda *_: results)
    assert main([]) == 1
    assert "the engine as it is fails, within 3 schedules" in capsys.readouterr().err


def test_an_unknown_edge_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gathers"])
    assert "no ordering edge 'gathers'" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["os.abort()", "time.sleep(600)"])
def test_a_process_that_dies_or_hangs_shows_the_edge_and_the_next_gets_a_new_one(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutations, "HANG_SECONDS", 5.0 if "sleep" in end else 60.0)
    monkeypatch.setattr(mutations, "_serve", {"os.abort()": _abort, "time.sleep(600)": _hang}[end])
    shown: list[Result] = []
    run_mutations(["record_landed"], range(3), shown.append)
    assert [result.edge for result in shown] == ["", "record_landed"]
    assert all(result.shown_by is not None and result.schedules == 1 for result in shown)


def _abort(pipe: object) -> None:
    import os

    os.abort()


def _hang(pipe: object) -> None:
    import time

    time.sleep(600)


def test_a_seed_gives_one_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    usual = schedules.Program.__init__

    def noted(self: schedules.Program, *args: object, **options: object) -> None:
        usual(self, *args, **options)  # type: ignore[arg-type]
        made.append((sorted(options.items()), self.random.getstate()))

    monkeypatch.setattr(schedules.Program, "__init__", noted)
    schedules.run_schedule(7)
    schedules.run_schedule(7)
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "edges"),
    [
        (
            "reader",
            ["copy_waits_for_gathers", "record_landed", "reader_waits_for_landing", "staging_waits_for_landing"],
        ),
        (
            "model",
            ["reader_flushes", "reader_waits_for_landing", "gathers_wait_for_chunk", "staging_waits_for_landing"],
        ),
        (
            "trace",
            ["reader_flushes", "reader_waits_for_landing", "gathers_wait_for_chunk", "staging_waits_for_landing"],
        ),
    ],
)
def test_each_kind_of_schedule_alone_misses_edges(kind: str, edges: list[str]) -> None:
    assert main(["--kind", kind, "--budget", "60", *edges]) == 0
