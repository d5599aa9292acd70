"""The command line: its help, its exit codes, and how it ends when it is cut off."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import nntap
from helpers import run_script
from nntap import cli, demo


def run_nntap(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nntap", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_version_and_help() -> None:
    version = run_nntap("--version")
    assert (version.returncode, version.stdout) == (0, f"nntap {nntap.__version__}\n")
    shown = run_nntap("--help")
    assert shown.returncode == 0
    assert "demo" in shown.stdout
    assert "doctor" in shown.stdout
    assert "--plot OUT.png" in run_nntap("demo", "--help").stdout


def test_no_command_and_an_unknown_one_are_told() -> None:
    for arguments in ((), ("harvest",)):
        result = run_nntap(*arguments)
        assert result.returncode == 2
        assert "usage: nntap" in result.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "nntap", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("name", ["demo", "doctor"])
def test_a_full_disk_is_told_without_a_traceback(name: str) -> None:
    command = [sys.executable, "-m", "nntap", name]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert result.returncode == 2
    assert result.stderr == "nntap: error: the output cannot be written: No space left on device\n"


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "nntap: interrupted\n"


def test_the_demo_without_torch_is_told() -> None:
    result = run_script("import sys; sys.modules['torch'] = None; from nntap.cli import main; sys.exit(main(['demo']))")
    assert result.returncode == 2, result.stderr
    assert "nntap demo: error:" in result.stderr
    assert "nntap doctor" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_command_runs_in_a_process_of_its_own_with_plain_ascii_output() -> None:
    result = run_nntap("demo", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\nlayer 5 " in result.stdout
