"""The README and the other pages: their examples run, their commands are what CI runs, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.contestants import CAPTURE, ON_NNTAP

from benchmarks import results

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
WITH_EXAMPLES = [README, ROOT / "docs" / "nnsight.md"]
PAGES = sorted(path for folder in (".", "docs", "benchmarks", "licenses") for path in ROOT.glob(f"{folder}/*.md"))

# Stands in for the download: the same architecture with random weights, and a tokenizer made here.
OFFLINE = """
import sys
sys.path.insert(0, {tests!r})
import nnsight
import models
nnsight.LanguageModel = lambda *args, **kwargs: models.gpt2_language_model(full_size=True)
"""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


def prints(page: Path) -> list[str]:
    return [line for block in blocks(page) for line in block.splitlines() if line.startswith("print(")]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_the_examples_run_and_print_what_their_comments_say(page, tmp_path):
    script = tmp_path / "examples.py"
    script.write_text(OFFLINE.format(tests=str(ROOT / "tests")) + "\n".join(blocks(page)))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [line.split("  # ", 1)[1] for line in prints(page)]


@pytest.mark.parametrize(("page", "least"), [(README, 6), (WITH_EXAMPLES[1], 12)], ids=["README.md", "nnsight.md"])
def test_there_are_examples_and_each_print_says_what_it_prints(page, least):
    assert len(prints(page)) >= least
    assert all("  # " in line for line in prints(page))


def test_ci_runs_the_two_commands_as_they_are_written():
    commands = subprocess.run([ROOT / "scripts" / "readme_commands.sh"], capture_output=True, text=True, check=True)
    assert commands.stdout.splitlines() == [
        'pip install ".[demo]" && nntap demo',
        'pip install ".[test]" && pytest -n auto',
    ]
    steps = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "mapfile -t commands < <(scripts/readme_commands.sh)" in steps
    assert [step for step in steps if step.startswith("eval ")] == ['eval "${commands[0]}"', 'eval "${commands[1]}"']


def anchors(page: Path) -> set[str]:
    """Where links can lead to on a page: its headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    links = {link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link}
    for path, _, anchor in (link.partition("#") for link in sorted(links)):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_supported_versions_are_those_the_code_names():
    from nntap.nnsight import SUPPORTED

    assert f"Supported: nnsight {SUPPORTED}." in README.read_text()


def parts(cases: list[dict[str, Any]], ratio: str, *contestants: str) -> str:
    """From the least to the largest of a ratio's medians, as the README says it."""
    rows = [row for case in cases for row in case["rows"] if row["contestant"] in contestants]
    found = [row[ratio]["median"] for row in rows if row[ratio] is not None]
    return f"{min(found):.1f} to {max(found):.1f}"


def test_the_parts_of_others_times_are_what_the_committed_results_give():
    cases = [case for result in results.committed() for case in result["cases"] if case["headline"]]
    earlier = [case for path in (results.FOLDER / "earlier").glob("*.json") for case in results.load(path)["cases"]]
    layers = [case for case in earlier if case["case"] == "blocks-layers-float16"]
    readme = " ".join(README.read_text().split())
    assert f"{parts(cases, 'of_nnsight', CAPTURE, ON_NNTAP)} of the time that nnsight's own cache adds" in readme
    assert f"{parts(cases, 'of_save', ON_NNTAP)} of what saving each output with `.save()` adds" in readme
    assert f"({parts(layers, 'of_nnsight', CAPTURE, ON_NNTAP)} on an [AMD EPYC]" in readme
