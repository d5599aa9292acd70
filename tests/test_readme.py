"""Every Python example of the README runs, in order, and prints what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# Stands in for the download: the same architecture with random weights, and a tokenizer made here.
OFFLINE = """
import sys
sys.path.insert(0, {tests!r})
import nnsight
import models
nnsight.LanguageModel = lambda *args, **kwargs: models.gpt2_language_model(full_size=True)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def expected_lines() -> list[str]:
    return [line.split("  # ", 1)[1] for block in blocks("python") for line in block.splitlines() if _prints(line)]


def _prints(line: str) -> bool:
    return line.startswith("print(") and "  # " in line


def test_the_examples_run_and_print_what_their_comments_say(tmp_path):
    script = tmp_path / "readme.py"
    script.write_text(OFFLINE.format(tests=str(ROOT / "tests")) + "\n".join(blocks("python")))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == expected_lines()


def test_there_are_examples_and_each_print_says_what_it_prints():
    prints = [line for block in blocks("python") for line in block.splitlines() if line.startswith("print(")]
    assert len(prints) > 15
    assert all(_prints(line) for line in prints)


def test_the_two_commands_are_what_ci_runs():
    commands = [line for line in "".join(blocks("bash")).splitlines() if line.startswith("pip install")]
    assert [line.split("#")[0].strip() for line in commands] == [
        'pip install ".[demo]" && nntap demo',
        'pip install ".[test]" && pytest',
    ]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()


def test_anchors_lead_to_headings():
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings


def test_the_supported_versions_are_those_the_code_names():
    from nntap.nnsight import SUPPORTED

    assert f"Supported: nnsight {SUPPORTED}." in README
