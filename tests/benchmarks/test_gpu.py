"""The GPU benchmarks run from end to end, in tiny sizes on the CPU, so that no slip waits for a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.row import Row, judged

ROOT = Path(__file__).parents[2]


def test_every_case_runs_and_gives_rows(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    main(["--device", "cpu", "--tiny", "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["broken"] == {}
    assert {row["case"] for row in result["rows"]} == set("abcdefgi")  # h reads the GPU's own counters
    assert all(row["nbytes"] > 0 and row["seconds"] > 0 for row in result["rows"])


def test_a_rate_above_the_link_is_impossible() -> None:
    row = Row("a", "one tensor", seconds=1.0, nbytes=100)
    assert row.as_dict(link=90)["impossible"]
    assert not row.as_dict(link=100)["impossible"]
    assert not Row("g", "on the device", 1.0, 100, crossed=False).as_dict(link=90)["impossible"]
    assert judged(row, 0.5, "at least 0.95", False).as_dict(link=100)["met"] is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_is_no_failure(tmp_path: Path) -> None:
    command = ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert run.returncode == 0, run.stderr
    assert run.stdout == "not run: torch finds no GPU here\n"
