"""What a run does with its cases: it fails on what is wrong or broken, and never on a time."""

from __future__ import annotations

import dataclasses

import pytest
from benchmarks.__main__ import main
from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP
from benchmarks.models import Unsuited
from benchmarks.worker import Settings
from made_results import ADDED, make_audit, make_case, make_part, make_result

from benchmarks import cases, contestants, pictures, report, results, run, worker

WHO = (BARE, CAPTURE, ON_NNTAP, NNSIGHTS)


@pytest.fixture
def in_this_process(monkeypatch):
    """Workers do what they do, without a process of their own, and shortly."""

    def measure(case, settings, seed, tell):
        try:
            return worker.measure(case.key, dataclasses.replace(settings, scale=0.001), seed)
        except Exception as error:
            raise run.BrokenCase("a contestant failed") from error

    monkeypatch.setattr(run, "_measure_in_process", measure)
    monkeypatch.setattr("benchmarks.peaks.SIZES", (4096, 65536))
    monkeypatch.setattr("benchmarks.peaks.SECONDS_A_SIZE", 0.0)


@pytest.fixture
def only_case(monkeypatch):
    """Replaces all cases by one."""

    def replace(**changes):
        case = make_case(quick=True, **{"contestants": WHO, **changes})
        monkeypatch.setattr(cases, "CASES", (case,))
        monkeypatch.setattr("benchmarks.__main__.CASES", (case,))

    return replace


def replaced(monkeypatch, name, make):
    found = tuple(
        dataclasses.replace(contestant, make=make) if contestant.name == name else contestant
        for contestant in contestants.CONTESTANTS
    )
    monkeypatch.setattr(contestants, "CONTESTANTS", found)


def test_a_quick_run_writes_a_result_and_shows_it(in_this_process, only_case, tmp_path, capsys):
    only_case()
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    (case,) = results.load(tmp_path / "out.json")["cases"]
    rows = {row["contestant"]: row for row in case["rows"]}
    assert set(rows) == set(WHO)
    assert rows[CAPTURE]["right"] == 13
    assert rows[CAPTURE]["right_in_place"] == 1.0
    assert rows[NNSIGHTS]["right_in_place"] == pytest.approx(5 / 13, rel=1e-5)
    assert "tracer.cache() on nntap" in capsys.readouterr().out


def test_a_wrong_record_fails_the_run(in_this_process, only_case, monkeypatch, tmp_path, capsys):
    only_case()
    replaced(monkeypatch, CAPTURE, contestants.plain.hooks_to_device)  # keeps aliases
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 1
    err = capsys.readouterr().err
    assert "a-case, nntap.capture: 8 wrong and 0 missing records" in err
    assert "38% right on a model with in-place operations" in err


def test_wrong_records_of_others_are_shown_and_fail_nothing(in_this_process, only_case, tmp_path):
    only_case()
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    (case,) = results.load(tmp_path / "out.json")["cases"]
    assert {row["contestant"]: row.get("wrong") for row in case["rows"]}[NNSIGHTS] == 8


def test_a_broken_contestant_fails_the_run(in_this_process, only_case, monkeypatch, tmp_path, capsys):
    only_case()

    def breaks(subject, request):
        raise RuntimeError("broken on purpose")

    replaced(monkeypatch, NNSIGHTS, breaks)
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 1
    assert "a-case: a contestant failed" in capsys.readouterr().err


def test_a_contestant_that_fails_in_its_own_process_is_found(monkeypatch, capfd):
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    result = run.measure([make_case()], Settings(), 1, lambda title, part: None)
    assert list(run.complaints(result)) == ["a-case: a contestant failed (exit code 1); its error is above"]


def test_a_worker_gives_what_it_measured_to_its_parent():
    case = dataclasses.replace(cases.find("in-place"), contestants=(BARE, CAPTURE))
    told = []
    result = run.measure([case], Settings(threads=1, scale=0.01), 1, lambda title, part: told.append(part))
    assert list(run.complaints(result)) == []
    assert result["cases"][0]["rounds"] >= 5
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_who_does_not_apply_is_a_line(in_this_process, only_case, monkeypatch, tmp_path, capsys):
    only_case()

    def unsuited(subject, request):
        raise Unsuited("it does not apply")

    replaced(monkeypatch, NNSIGHTS, unsuited)
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    assert "tracer.cache() of nnsight: skipped, it does not apply" in capsys.readouterr().out


def test_a_case_without_its_model_is_a_line(in_this_process, only_case, tmp_path, capsys):
    def subject(device):
        raise Unsuited("the model is not installed")

    only_case(subject=subject)
    assert main(["--quick", "--out", str(tmp_path / "out.json")]) == 0
    assert "skipped: the model is not installed" in capsys.readouterr().out


def test_an_unknown_case_is_named_with_those_there_are():
    with pytest.raises(SystemExit, match=r"--only tiny is not a case\. These are: tiny-all, "):
        main(["--only", "tiny"])


def test_processor_time_is_for_one_thread():
    with pytest.raises(SystemExit, match="give --threads 1"):
        main(["--clock", "process"])


def test_faster_than_memory_copies_is_impossible():
    floor = [1.0] * 10
    assert run.faster_than_the_peak([1.001] * 10, floor, least_seconds=0.01)
    assert not run.faster_than_the_peak([1.011] * 10, floor, least_seconds=0.01)


def test_where_the_floor_varies_by_more_than_the_copy_nothing_is_impossible():
    floor = [1.0, 1.1] * 5
    assert not run.faster_than_the_peak([1.0] * 10, floor, least_seconds=0.01)


def test_an_impossible_figure_fails_the_run():
    audits = {CAPTURE: make_audit(moved_sizes=[1 << 30], bytes_moved=1 << 30)}
    case = run.joined(make_case(contestants=WHO), [make_part(ADDED, audits)])
    complaint = "a-case, nntap.capture: copied faster than this machine can; the benchmark is wrong"
    assert list(run.complaints({"cases": [case]})) == [complaint]


def test_no_time_is_a_complaint():
    assert list(run.complaints(make_result({CAPTURE: 60.0, ON_NNTAP: 60.0}))) == []


def test_a_contestant_with_a_floor_of_its_own_is_measured_against_it():
    part = make_part(ADDED)
    part["seconds"][worker.floor_of(CAPTURE)] = [0.109] * 9
    rows = {row["contestant"]: row for row in run.joined(make_case(contestants=WHO), [part])["rows"]}
    assert rows[CAPTURE]["added"]["median"] == pytest.approx(0.0011)


def test_rounds_of_all_processes_are_joined():
    parts = [make_part(ADDED), make_part(ADDED | {CAPTURE: 0.012})]
    parts[1]["peak"] = [(4096, 30e9), (1 << 20, 11e9)]
    case = run.joined(make_case(contestants=WHO), parts)
    rows = {row["contestant"]: row for row in case["rows"]}
    assert case["rounds"] == 18
    assert case["peak"] == [(4096, 40e9), (1 << 20, 11e9)]
    assert 0.0100 < rows[CAPTURE]["added"]["median"] < 0.0121


def test_pictures_are_drawn_from_a_result_alone(tmp_path, result):
    assert main(["plot", str(saved(tmp_path, result)), "--to", str(tmp_path / "pictures")]) == 0
    made = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert made == ["result-bytes.png", "result-contestants.png"]


def test_the_steps_are_a_picture_where_there_are_several(result):
    other = dict(result["cases"][0], steps=8)
    assert pictures.by_steps(result) is None
    result["cases"] = [other, dict(other, steps=32)]
    assert pictures.by_steps(result) is not None


def test_a_result_can_be_shown_again(tmp_path, result, capsys):
    assert main(["show", str(saved(tmp_path, result))]) == 0
    out = capsys.readouterr().out
    assert "what is recorded (bare: 100 ms, 9 rounds)" in out
    assert "TraceDict: skipped, it does not apply" in out


def test_the_table_shows_every_column(result):
    from rich.console import Console

    console = Console(record=True, width=190)
    report.show(result, console)
    text = console.export_text()
    for column in report.COLUMNS:
        assert column in text


def saved(folder, result):
    path = folder / "result.json"
    results.save(result, path)
    return path


def test_a_process_that_ends_while_it_writes_leaves_the_result_that_was_there(tmp_path, monkeypatch):
    path = saved(tmp_path, {"a": 1})
    whole = type(path).write_text

    def killed(self, text):
        whole(self, text[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        results.save({"a": 2}, path)
    assert results.load(path) == {"a": 1}


def test_cases_have_keys_of_their_own_and_the_quick_ones_cover_the_kinds():
    keys = [case.key for case in cases.CASES]
    assert len(keys) == len(set(keys))
    quick = {case.key for case in cases.CASES if case.quick}
    assert {"tiny-all", "in-place", "generate-8"} <= quick
