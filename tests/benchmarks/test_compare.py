"""`compare` tells slower from the same, and says when it cannot tell."""

from __future__ import annotations

import pytest
from benchmarks.__main__ import main
from benchmarks.contestants import CAPTURE, ON_NNTAP
from made_results import MACHINE, make_result

from benchmarks import results


@pytest.fixture
def compared(tmp_path):
    def run(before, after, *options):
        paths = [tmp_path / "before.json", tmp_path / "after.json"]
        for result, path in zip((before, after), paths, strict=True):
            results.save(result, path)
        return main(["compare", *map(str, paths), *options])

    return run


def test_the_same_result_is_no_regression(compared, result, capsys):
    assert compared(result, result) == 0
    assert capsys.readouterr().out.count("same") == 2


def test_a_slower_contestant_is_a_regression(compared, result, capsys):
    assert compared(result, make_result({CAPTURE: 0.020})) == 1
    out = capsys.readouterr().out
    assert "slower  a-case, nntap.capture: 0.101 -> 0.201 bare runs added" in out
    assert f"same    a-case, {ON_NNTAP}" in out


def test_a_faster_one_is_none(compared, result, capsys):
    assert compared(result, make_result({CAPTURE: 0.001})) == 0
    assert "faster  a-case, nntap.capture" in capsys.readouterr().out


def test_within_the_tolerance_it_is_the_same(compared, result):
    slightly = make_result({CAPTURE: 0.011})
    assert compared(result, slightly) == 0
    assert compared(result, slightly, "--tolerance", "0.05") == 1


def test_only_what_nntap_adds_counts(compared, result):
    assert compared(result, make_result({"tracer.cache() of nnsight": 0.5})) == 0


def test_a_machine_that_is_slower_as_a_whole_is_no_regression(compared, result):
    slower = make_result()
    for row in slower["cases"][0]["rows"]:
        for spread in (row.get("seconds"), row.get("added")):
            if spread is not None:
                spread.update({key: value * 3 for key, value in spread.items()})
    assert compared(result, slower) == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"machine": MACHINE | {"cpu": "Another"}}, "cpu differs: A processor and Another"),
        ({"machine": MACHINE | {"threads": 8}}, "threads differs: 1 and 8"),
        ({"settings": {"clock": "process"}}, "different clocks"),
        ({"cases": []}, "no case in common"),
    ],
    ids=["machine", "threads", "clock", "cases"],
)
def test_what_cannot_be_compared_is_not(compared, result, capsys, changes, reason):
    assert compared(result, make_result(**changes)) == 2
    assert reason in capsys.readouterr().out
