"""The GPU benchmarks run from end to end, in tiny sizes on the CPU, so that no slip waits for a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import cases, contestants, ready, setting
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.models import llama, tokens
from benchmarks.gpu.row import Row, judged
from benchmarks.gpu.setting import TINY, OutOfTime, Setting, registered
from benchmarks.models import twin
from benchmarks.timer import Timer
from nnsight import NNsight
from transformers import LlamaForCausalLM

from helpers import with_kernels
from nntap.testing import simulated

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY_ON_CPU = ["--device", "cpu", "--tiny"]


def run(tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was written."""
    out = tmp_path / "gpu.json"
    return main([*TINY_ON_CPU, *options, "--out", str(out)]), json.loads(out.read_text())


def test_every_case_runs_and_gives_rows(tmp_path: Path) -> None:
    _, result = run(tmp_path)
    assert (result["broken"], result["not_run"]) == ({}, {})
    assert {row["case"] for row in result["rows"]} == set("abcdefgi")  # h reads the GPU's own counters
    assert all(row["nbytes"] > 0 and row["seconds"] > 0 for row in result["rows"])


def test_a_rate_above_the_link_is_impossible() -> None:
    row = Row("a", "one tensor", seconds=1.0, nbytes=100)
    assert row.as_dict(link=90)["impossible"]
    assert not row.as_dict(link=96)["impossible"]
    assert not Row("g", "on the device", 1.0, 100, crossed=False).as_dict(link=90)["impossible"]
    assert judged(row, 0.5, "at least 0.95", False).as_dict(link=100)["met"] is False


# ---- what is left of a run that does not reach its end ----


def test_a_case_that_breaks_keeps_its_rows_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(setting: Setting) -> Iterator[Row]:
        yield Row("x", "before it", 1.0, 1)
        raise RuntimeError("no closing [/tag]")

    def goes_on(setting: Setting) -> Iterator[Row]:
        yield Row("y", "after it", 1.0, 1)

    monkeypatch.setattr(command, "CASES", (breaks, goes_on))
    code, result = run(tmp_path)
    assert code == 1
    assert [row["case"] for row in result["rows"]] == ["x", "y"]
    assert list(result["broken"]) == ["breaks"]
    assert "RuntimeError: no closing [/tag]" in capsys.readouterr().out


def test_generation_that_breaks_costs_no_other_case_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "generate", None)
    only = [option for case in ("layers_in_prefill", "decode", "all_modules") for option in ("--only", case)]
    _, result = run(tmp_path, *only)
    assert list(result["broken"]) == ["decode"]
    assert {row["case"] for row in result["rows"]} == {"c", "d"}


def test_each_row_is_written_before_the_next_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    written = []

    def two(setting: Setting) -> Iterator[Row]:
        yield Row("x", "first", 1.0, 1)
        written.extend(json.loads(out.read_text())["rows"])
        yield Row("x", "second", 1.0, 1)

    monkeypatch.setattr(command, "CASES", (two,))
    run(tmp_path)
    assert [row["what"] for row in written] == ["first"]
    assert os.listdir(tmp_path) == ["gpu.json"]


def test_cases_that_find_no_time_left_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(tmp_path, "--seconds", "-5", "--note", "tests: [3] passed")
    assert code == 0
    assert (result["rows"], result["broken"]) == ([], {})
    assert result["not_run"] == {case.__name__: "no time left" for case in cases.CASES}
    out = capsys.readouterr().out
    assert out.count("not run: no time left") == len(cases.CASES)
    assert result["notes"] == ["tests: [3] passed"]
    assert "tests: [3] passed" in out


def test_no_run_is_started_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = SimpleNamespace(seconds=0)
    monkeypatch.setattr(setting, "monotonic", lambda: now.seconds)
    here = Setting.of(CPU, TINY, end=10)
    runs = []

    def run() -> None:
        runs.append(now.seconds)
        now.seconds += 10

    with pytest.raises(OutOfTime):
        here.median(run)
    assert runs == [0]


# ---- what is measured ----


def shapes(value: Any) -> list[tuple[int, ...]]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def test_all_contestants_record_the_same() -> None:
    here = Setting.of(CPU, TINY)
    model, inputs = llama(here), tokens(here, TINY.prefill_of_all)

    def forward() -> Any:
        return contestants.run_prefill(model, inputs)

    ours = contestants.on_nntap(model, forward)
    expected = {path: shapes(ours[path].output) for path in ours.keys()}  # noqa: SIM118
    assert expected["lm_head"] == [(TINY.prefill_of_all[0], 1, TINY.vocabulary)]
    for hooks in (contestants.on_cpu_hooks, contestants.on_pinned_hooks):
        assert {path: shapes(output) for path, output in hooks(model, forward).items()} == expected
    wrapped = NNsight(twin(model))
    named = {f"model.{path}" if path else "model": found for path, found in expected.items()}
    saved = contestants.on_nnsight_save(wrapped, inputs, list(expected))
    assert {path: shapes(output) for path, output in saved.items()} == named
    cache = contestants.on_nnsight_cache(wrapped, inputs)
    assert {path: shapes(cache[path].output) for path in cache.keys()} == named  # noqa: SIM118


def test_what_nnsight_wraps_is_not_what_the_others_run() -> None:
    here = Setting.of(CPU, TINY)
    model = llama(here)
    before = [list(vars(module)) for module in model.modules()]
    list(cases.all_modules(here))
    assert [list(vars(module)) for module in model.modules()] == before


def test_peak_memory_is_what_recording_takes_more_than_the_bare_run(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([100, 130])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 10)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peaks))
    here = Setting.of(CPU, TINY)
    monkeypatch.setattr(cases, "llama", lambda _: llama(here))
    monkeypatch.setattr(cases, "tokens", lambda _, shape: tokens(here, shape))
    (row,) = cases.peak_memory(replace(here, device=torch.device("cuda")))
    assert (row.nbytes, row.met) == (30, True)


@with_kernels
def test_cold_start_pins_its_memory_while_the_clock_runs() -> None:
    with simulated() as sim:
        clock = Timer(clock=lambda: sim.report().registered_bytes)
        (row,) = cases.cold_start(Setting(CPU, TINY, clock, link=1.0, end=0.0))
        assert row.seconds == row.nbytes


def test_the_link_is_that_of_the_faster_kind_of_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda pointer, nbytes, flags: calls.append(("register", pointer, nbytes)),
        cudaHostUnregister=lambda pointer: calls.append(("unregister", pointer)),
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "check_error", lambda result: None)
    with registered(1 << 16) as memory:
        assert calls == [("register", memory.data_ptr(), 1 << 16)]
        assert int(memory.sum()) == 0
    assert calls[1:] == [("unregister", memory.data_ptr())]

    rates = iter([3.0, 5.0])
    monkeypatch.setattr(setting, "_rate", lambda source, target, timer: next(rates))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device=CPU, pin_memory=False, **rest: empty(*shape, **rest))
    assert setting.measure_link(torch.device("cuda"), TINY, Timer()) == 5.0


# ---- the check ----


def test_what_the_tests_on_a_gpu_need_does_not_include_nnsight() -> None:
    code = "import sys; sys.modules['nnsight'] = None; sys.path[:0] = ['tests', 'tests/cuda']; import test_on_gpu"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_not_installed_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ready.main() == 0
    monkeypatch.setattr(ready, "find_spec", lambda name: None if name in ("nnsight", "pytest_timeout") else object())
    assert ready.main() == 1
    assert capsys.readouterr().out == (
        "not installed: nnsight>=0.6.3,<0.9, pytest-timeout>=2.3\n"
        'how to fix: pip install "nnsight>=0.6.3,<0.9" "pytest-timeout>=2.3"\n'
    )


def test_the_check_asks_for_the_versions_that_the_package_asks_for() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    wanted = {name: f'"{requirement}"' for name, requirement in ready.NEEDED.items() if name != "nntap"}
    assert [name for name, requirement in wanted.items() if requirement not in project] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_and_is_no_failure(tmp_path: Path) -> None:
    done = check(tmp_path / "out", PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "not run: torch finds no GPU here\n"
    assert not (tmp_path / "out").exists()


def check(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "benchmarks" / "gpu_check.sh"), str(out)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


class Machine:
    """One whose commands only write down how they were called, and with how many seconds to do it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.add("python", 'case "$*" in *pytest*) echo "3 passed" ;; esac')
        self.add("timeout", f'echo "$@" >>{folder}/calls; shift 3; exec "$@"')
        self.add("compute-sanitizer", "exit 0")

    def add(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def check(self, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder}:{os.environ['PATH']}"
        done = check(self.folder / "out", PYTHON=str(self.folder / "python"), PATH=path, **environment)
        self.calls = (self.folder / "calls").read_text().splitlines()
        return done

    def seconds(self, part: str) -> int:
        """What a part was given."""
        (call,) = [call for call in self.calls if part in call and ("sanitizer" in part or "sanitizer --" not in call)]
        return int(call.split()[2])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_parts_of_the_check_share_nine_minutes(machine: Machine) -> None:
    assert machine.check().returncode == 0
    assert machine.seconds("-m pytest") <= 180
    assert machine.seconds("compute-sanitizer --tool") <= 90
    assert 500 <= machine.seconds("benchmarks.gpu --seconds") <= 540 - 5
    left = int(machine.calls[-1].split("--seconds ")[1].split()[0])
    assert left == machine.seconds("benchmarks.gpu --seconds") - 30


def test_what_the_parts_before_have_taken_is_not_there_for_those_after(machine: Machine) -> None:
    machine.check(SECONDS="450")  # bash counts on from there
    assert all(1 <= int(call.split()[2]) <= 90 for call in machine.calls)
    assert all(int(call.split()[2]) <= 80 for call in machine.calls[1:])


def test_the_result_says_what_became_of_the_other_parts(machine: Machine) -> None:
    machine.check()
    assert machine.calls[-1].endswith("--note tests: 3 passed --note compute-sanitizer: no errors")


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("echo '========= ERROR: Device not supported'; exit 1", 0, "not run: it does not support this GPU"),
        ("echo '========= Invalid read'; exit 9", 1, "failed"),
        ("exit 124", 0, "not finished in its time"),
    ],
)
def test_what_the_sanitizer_says_is_understood(machine: Machine, body: str, code: int, said: str) -> None:
    machine.add("compute-sanitizer", body)
    done = machine.check()
    assert done.returncode == code
    assert f"\n{said}\n" in done.stdout
    assert machine.calls[-1].endswith(f"compute-sanitizer: {said}")


def test_a_part_that_fails_fails_the_check_and_the_others_run(machine: Machine) -> None:
    machine.add("python", 'case "$*" in *pytest*) echo "1 failed"; exit 1 ;; esac')
    done = machine.check()
    assert done.returncode == 1
    assert "--note tests: 1 failed" in machine.calls[-1]


def test_nothing_runs_where_something_is_missing(machine: Machine) -> None:
    machine.add("python", "exit 1")
    assert machine.check().returncode == 1
    assert len(machine.calls) == 1
