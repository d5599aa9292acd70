"""The README's table is what the committed results give, and nothing else."""

from __future__ import annotations

from benchmarks import results, tables


def test_the_readmes_table_is_what_the_committed_results_give():
    readme = tables.README.read_text()
    assert tables.put_in_readme(tables.headline(results.committed()), readme) == readme


def test_there_are_committed_results_with_every_headline_case():
    from benchmarks.cases import CASES

    wanted = {case.key for case in CASES if case.headline}
    assert any(wanted <= {case["case"] for case in result["cases"]} for result in results.committed())
