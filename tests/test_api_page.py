"""docs/api.md is what its script makes of the docstrings, and the stubs name what the core has."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nntap
from nntap import _core

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_docstrings_make_it():
    command = [sys.executable, str(ROOT / "scripts" / "make_api_page.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", sorted(set(nntap.__all__) - {"__version__"}))
def test_every_public_name_is_on_the_page_and_has_a_docstring(name):
    assert f"### `nntap.{name}`\n" in (ROOT / "docs" / "api.md").read_text()
    assert inspect.getdoc(getattr(nntap, name))


STUB = ast.parse((ROOT / "python" / "nntap" / "_core.pyi").read_text())


def test_the_stub_names_all_that_the_core_has_and_nothing_else():
    stubbed = {node.name for node in STUB.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    stubbed |= {node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign)}
    there = {name for name in vars(_core) if not name.startswith("__")}
    assert stubbed == there


@pytest.mark.parametrize("stub", [node for node in STUB.body if isinstance(node, ast.ClassDef)], ids=lambda n: n.name)
def test_the_stub_of_a_class_names_its_methods(stub):
    stubbed = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    there = {name for name in vars(getattr(_core, stub.name)) if not name.startswith("__")}
    assert {name for name in stubbed if not name.startswith("__")} == there
