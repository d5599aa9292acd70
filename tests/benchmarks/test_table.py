"""The README's table is what the committed results give, and nothing else."""

from __future__ import annotations

import pytest
from benchmarks.cases import CASES
from benchmarks.contestants import SAVE, SAVE_MOVED
from made_results import make_result

from benchmarks import results, tables


def test_the_readmes_table_is_what_the_committed_results_give():
    readme = tables.README.read_text()
    assert tables.put_in_readme(tables.headline(results.committed()), readme) == readme


def test_there_are_committed_results_with_every_headline_case():
    wanted = {case.key for case in CASES if case.headline}
    assert any(wanted <= {case["case"] for case in result["cases"]} for result in results.committed())


def test_a_line_is_the_figures_of_its_rows(result):
    lines = tables.headline([result]).splitlines()
    assert lines[0] == "A processor, one thread of torch 2.13.0, nnsight 0.8.1:"
    bare = "3.00 MiB | 100 ms"
    theirs = "nnsight's cache | 50.1 ms"
    assert f"| what is recorded, under nnsight | {bare} | {theirs} | 20.1 ms | 0.40 (0.40 to 0.40) |" in lines
    assert f"| what is recorded, stand-alone | {bare} | {theirs} | 10.1 ms | 0.20 (0.20 to 0.20) |" in lines


@pytest.mark.parametrize(
    ("added", "name"),
    [({SAVE: 0.040, SAVE_MOVED: 0.080}, SAVE), ({SAVE_MOVED: 0.040}, SAVE_MOVED)],
)
def test_a_line_compares_with_save_where_it_was_measured(added, name):
    what = "what is recorded, under nnsight | 3.00 MiB | 100 ms"
    lines = [line for line in tables.headline([make_result(added)]).splitlines() if "save()" in line]
    assert lines == [f"| {what} | `{name}` of each | 40.1 ms | 20.1 ms | 0.50 (0.50 to 0.50) |"]


def test_the_table_says_where_nothing_was_measured_on_a_gpu(result):
    assert tables.headline([result]).endswith("Not measured on a GPU yet.")
    on_gpu = result | {"machine": result["machine"] | {"device": "cuda", "gpu": "A GPU"}}
    assert "Not measured" not in tables.headline([result, on_gpu])
    assert "A GPU, one thread" in tables.headline([on_gpu])


def test_a_case_that_is_no_headline_is_not_in_the_table(result):
    result["cases"][0]["headline"] = False
    assert "what is recorded" not in tables.headline([result])


def test_the_rest_of_the_readme_is_left_alone():
    readme = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    assert tables.put_in_readme("new", readme) == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- benchmarks: table -->"):
        tables.put_in_readme("new", "no marks")
