"""docs/api.md is what its script makes of the docstrings."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nntap

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_docstrings_make_it():
    command = [sys.executable, str(ROOT / "scripts" / "make_api_page.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", sorted(set(nntap.__all__) - {"__version__"}))
def test_every_public_name_is_on_the_page_and_has_a_docstring(name):
    assert f"### `nntap.{name}`\n" in (ROOT / "docs" / "api.md").read_text()
    assert inspect.getdoc(getattr(nntap, name))


def test_the_page_shows_no_private_names():
    page = (ROOT / "docs" / "api.md").read_text()
    assert re.findall(r"(?<![\w.`])_[A-Za-z]\w*", page) == []
