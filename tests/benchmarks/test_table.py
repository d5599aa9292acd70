"""The README's table is what the committed results give, and nothing else."""

from __future__ import annotations

import pytest
from benchmarks.cases import CASES
from benchmarks.contestants import SAVE, SAVE_MOVED
from benchmarks.gpu.row import Row, judged
from benchmarks.timer import Spread
from made_results import make_result

from benchmarks import results, tables


def test_the_readmes_table_is_what_the_committed_results_give():
    readme = tables.README.read_text()
    text = tables.headline(results.committed(), results.committed_of_gpus())
    assert tables.put_in_readme(text, readme) == readme


def test_there_are_committed_results_with_every_headline_case():
    wanted = {case.key for case in CASES if case.headline}
    assert any(wanted <= {case["case"] for case in result["cases"]} for result in results.committed())


def test_a_line_is_the_figures_of_its_rows(result):
    lines = tables.headline([result]).splitlines()
    assert lines[0] == "A processor, one thread of torch 2.13.0, nnsight 0.8.1:"
    bare = "3.00 MiB | 100 ms"
    theirs = "nnsight's cache | 50.1 ms"
    assert f"| what is recorded | under nnsight | {bare} | {theirs} | 20.1 ms | 0.40 (0.40 to 0.40) |" in lines
    assert f"| what is recorded | stand-alone | {bare} | {theirs} | 10.1 ms | 0.20 (0.20 to 0.20) |" in lines


@pytest.mark.parametrize(
    ("added", "name"),
    [({SAVE: 0.040, SAVE_MOVED: 0.080}, SAVE), ({SAVE_MOVED: 0.040}, SAVE_MOVED)],
)
def test_a_line_compares_with_save_where_it_was_measured(added, name):
    what = "what is recorded | under nnsight | 3.00 MiB | 100 ms"
    lines = [line for line in tables.headline([make_result(added)]).splitlines() if "save()" in line]
    assert lines == [f"| {what} | `{name}` of each | 40.1 ms | 20.1 ms | 0.50 (0.50 to 0.50) |"]


def test_the_table_says_where_nothing_was_measured_on_a_gpu(result):
    assert tables.headline([result]).endswith("Not measured on a GPU yet.")
    on_gpu = result | {"machine": result["machine"] | {"device": "cuda", "gpu": "A GPU"}}
    assert "Not measured" not in tables.headline([result, on_gpu])
    assert "A GPU, one thread" in tables.headline([on_gpu])


def test_what_the_gpu_benchmarks_gave_is_a_table_of_its_own(result, tmp_path, monkeypatch):
    rows = [
        Row("c", "bare forward", [0.5, 0.75], None),
        judged(Row("c", "32 layers", [0.5], 2**30), Spread(1.0, 0.99, 1.014), "over the bare one", True),
        judged(Row("d", "the same by another", [5.0], 2**30), None, "what nntap adds over what this adds", False),
    ]
    machine = result["machine"] | {"device": "cuda", "gpu": "A GPU"}
    made = {"machine": machine, "link_gb_per_s": 54.321, "rows": [row.as_dict(54.321e9) for row in rows]}
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.save(made, tmp_path / "a-gpu.json")
    results.save(result, tmp_path / "a-processor.json")
    (of_gpu,) = results.committed_of_gpus()
    assert len(results.committed()) == 1
    text = tables.headline(results.committed(), [of_gpu])
    assert text.startswith(tables.headline([result]).rpartition("Not measured")[0])
    assert "Not measured" not in text
    assert text.splitlines()[-7:] == [
        "A GPU, torch 2.13.0, Llama-8B-shaped bfloat16; "
        "a raw copy of 1 GiB into pinned memory runs at 54.3 GB/s, the link:",
        "",
        "| Case | Run | Time | Bytes | GB/s | Of the link | Figure | What it is |",
        "|---|---|---|---|---|---|---|---|",
        "| c | bare forward | 625 ms |  |  |  |  |  |",
        "| c | 32 layers | 500 ms | 1.00 GiB | 2.15 | 0.04 | 1.00 (0.99 to 1.01) | over the bare one: met |",
        "| d | the same by another | 5000 ms | 1.00 GiB | 0.215 | 0.00 | within noise | "
        "what nntap adds over what this adds: missed |",
    ]


def test_a_case_that_is_no_headline_is_not_in_the_table(result):
    result["cases"][0]["headline"] = False
    assert "what is recorded" not in tables.headline([result])


def test_the_rest_of_the_readme_is_left_alone():
    readme = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    assert tables.put_in_readme("new", readme) == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- benchmarks: table -->"):
        tables.put_in_readme("new", "no marks")
