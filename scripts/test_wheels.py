"""Tests wheels as users get them: each in a clean environment for each torch, with no compiler on the PATH.

    python scripts/test_wheels.py wheelhouse/*.whl --torch 2.10.0 2.13.0 2.14.1

In each environment torch is installed first, then the wheel with its `demo` and `safetensors` extras, which must leave
that torch as it is; then come an import, `nntap doctor`, `nntap demo` and the tests of the core, copied out of here.
Environments are made by uv, which keeps what it downloads once for all of them, and are removed again.

Needs rich and uv (`scripts/wheel_tools.sh` installs them). The exit code is 0 when everything passed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
TORCHES = {  # and the Pythons 3 that each has wheels for
    "2.4.1": range(10, 13),
    "2.5.1": range(10, 14),
    "2.7.1": range(10, 14),
    "2.8.0": range(10, 14),
    "2.9.1": range(10, 15),
    "2.10.0": range(10, 15),
    "2.13.0": range(10, 15),
    "2.14.1": range(10, 15),
    "2.15.0": range(11, 16),
}
OLD_TRANSFORMERS = {"2.4.1": "transformers<5", "2.5.1": "transformers<5"}  # newer ones need torch 2.6
STEPS = ["install", "import", "doctor", "demo", "tests"]
CORE_TESTS = [
    "test_cache.py",
    "test_cache_copies.py",
    "test_capture.py",
    "test_capture_threads.py",
    "test_casts.py",
    "test_compile.py",
    "test_doctor.py",
    "test_export.py",
    "test_nest.py",
    "test_properties.py",
    "test_selection.py",
    "test_setups.py",
    "test_share.py",
    "test_show.py",
    "test_slow_path.py",
    "test_snapshot.py",
    "test_user_hooks.py",
    "test_visits.py",
]
TEST_PACKAGES = ["hypothesis", "numpy", "pytest", "pytest-timeout", "pytest-xdist"]
LINES_SHOWN = 40


@dataclass
class Cell:
    """One wheel with one torch, and how each step went."""

    wheel: str
    python: str
    torch: str  # as asked for, then as installed
    steps: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return list(self.steps) == STEPS and not any(result.startswith("FAILED") for result in self.steps.values())


class StepError(Exception):
    """A step failed; the text is what it printed."""


class Environment:
    """A virtual environment on whose PATH there is nothing else."""

    def __init__(self, folder: Path, python: str) -> None:
        uv = shutil.which("uv")
        if uv is None:
            raise StepError("uv is not installed: scripts/wheel_tools.sh installs it")
        self._uv_program = uv
        self._folder = folder
        self._bin = folder / "venv" / "bin"
        self._uv("venv", "--python", python, str(folder / "venv"))

    def install(self, *packages: str) -> None:
        self._uv("pip", "install", "--python", str(self._bin / "python"), *packages)

    def run(self, program: str, *arguments: str) -> str:
        """Runs what the environment has, outside the source tree. Returns what it printed."""
        keep = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        env = {**keep, "PATH": str(self._bin), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
        return _run([str(self._bin / program), *arguments], env, self._folder)

    def _uv(self, *arguments: str) -> None:
        env = {**os.environ, "PATH": str(self._bin), "UV_PYTHON_DOWNLOADS": "never"}
        _run([self._uv_program, "--no-config", *arguments], env, self._folder)


def _run(command: list[str], env: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=env, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise StepError(f"$ {' '.join(command)}\nexit code {done.returncode}\n{done.stdout}")
    return done.stdout


def test_cell(wheel: Path, python: str, torch: str, tests: list[str], console: Console) -> Cell:
    """All steps, up to the first that fails; what that one printed goes to the console."""
    cell = Cell(wheel.name, python, torch)
    with tempfile.TemporaryDirectory(prefix="nntap-wheel-") as name:
        folder = Path(name)
        actions: dict[str, Callable[[], str]] = {
            "install": lambda: _install(environment, wheel, torch, cell),
            "import": lambda: _import(environment, folder),
            "doctor": lambda: environment.run("nntap", "doctor") and "ok",
            "demo": lambda: environment.run("nntap", "demo") and "ok",
            "tests": lambda: _core_tests(environment, folder, tests),
        }
        step = STEPS[0]
        try:
            environment = Environment(folder, python)
            for step in STEPS:
                cell.steps[step] = actions[step]()
        except StepError as error:
            cell.steps[step] = "FAILED"
            console.print(f"\n{wheel.name}, torch {torch}: {step} failed", style="bold red")
            console.print("\n".join(str(error).splitlines()[-LINES_SHOWN:]), markup=False, highlight=False)
    return cell


def _install(environment: Environment, wheel: Path, torch: str, cell: Cell) -> str:
    environment.install(f"torch=={torch}")
    version = "from importlib.metadata import version; print(version('torch'))"
    before = environment.run("python", "-c", version)
    transformers = OLD_TRANSFORMERS.get(torch, "transformers")
    environment.install(f"{wheel}[demo,safetensors]", transformers, *TEST_PACKAGES)
    after = environment.run("python", "-c", version)
    if before != after:
        raise StepError(f"installing the wheel replaced torch {before.strip()} by {after.strip()}")
    compilers = [name for name in ("c++", "cc", "clang", "g++", "gcc", "nvcc") if _finds(environment, name)]
    if compilers:
        raise StepError(f"there is a compiler in the environment: {', '.join(compilers)}")
    return "ok"


def _finds(environment: Environment, name: str) -> bool:
    return environment.run("python", "-c", f"import shutil; print(shutil.which({name!r}))").strip() != "None"


def _import(environment: Environment, folder: Path) -> str:
    script = "import torch, nntap; nntap.capture; print(torch.__version__, nntap.__file__)"
    version, where = environment.run("python", "-c", script).split()[-2:]
    if not Path(where).is_relative_to(folder):
        raise StepError(f"nntap was imported from {where} and not from the wheel")
    return version


def _core_tests(environment: Environment, folder: Path, names: list[str]) -> str:
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    files = [f"tests/{name}" for name in names]
    out = environment.run("python", "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *files)
    counts = re.search(r"\d+ passed[^\n]*?(?= in )", out)
    if counts is None:
        raise StepError(f"no test passed:\n{out}")
    return counts[0]


def interpreters() -> dict[str, str]:
    """The Pythons of this machine by wheel tag, such as cp311."""
    found = subprocess.run([ROOT / "scripts" / "find_pythons.sh"], capture_output=True, text=True, check=True).stdout
    script = "import sys; print('cp%d%d' % sys.version_info[:2])"
    return {
        subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip(): python
        for python in found.split()
    }


def torches(tag: str, asked: list[str] | None) -> list[str]:
    """The releases to test a wheel with that tag with."""
    available = [torch for torch, pythons in TORCHES.items() if int(tag.removeprefix("cp3")) in pythons]
    return [available[0] if torch == "oldest" else torch for torch in asked] if asked else available


def table(cells: list[Cell]) -> Table:
    out = Table(title="Wheels on every torch")
    for column in ("wheel", "torch", *STEPS):
        out.add_column(column, overflow="fold")
    for cell in cells:
        results = [cell.steps.get(step, "-") for step in STEPS]
        out.add_row(cell.wheel.split("-")[2], cell.torch, *results, style=None if cell.passed else "red")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--torch",
        nargs="+",
        metavar="VERSION",
        help=f"or `oldest` (default: those of {' '.join(TORCHES)} that there are for the wheel's Python)",
    )
    parser.add_argument(
        "--tests", nargs="+", default=CORE_TESTS, metavar="FILE", help="of tests/ (default: the core's)"
    )
    parser.add_argument("--python", metavar="PATH", help="an interpreter for every wheel (default: what is found)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    arguments = parser.parse_args()
    found = interpreters()
    console = Console(width=None if sys.stdout.isatty() else 120)
    cells = []
    for wheel in arguments.wheels:
        tag = wheel.name.split("-")[2]
        python = arguments.python or found.get(tag)
        if python is None:
            parser.error(f"{wheel.name}: there is no Python for {tag} here; found are {', '.join(found) or 'none'}")
        for torch in torches(tag, arguments.torch):
            cells.append(test_cell(wheel.resolve(), python, torch, arguments.tests, console))
            console.print(tag, f"torch {torch}", cells[-1].steps, highlight=False)
            if arguments.json:
                arguments.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=2) + "\n")
    console.print(table(cells))
    return 0 if all(cell.passed for cell in cells) else 1


if __name__ == "__main__":
    sys.exit(main())
