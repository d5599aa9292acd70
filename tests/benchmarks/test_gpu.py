"""The GPU benchmarks run from end to end, in tiny sizes on the CPU, so that no slip waits for a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import cases, contestants, note, probe, ready, setting
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.models import Gives, llama, tokens
from benchmarks.gpu.row import Row, judged
from benchmarks.gpu.setting import TINY, OutOfTime, Setting, registered
from benchmarks.models import twin
from benchmarks.timer import Spread, Timer
from nnsight import NNsight
from transformers import LlamaForCausalLM

from benchmarks import results
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
    bare = [row for row in result["rows"] if row["nbytes"] is None]
    assert [row["what"] for row in bare] == ["bare forward", "bare forward", "bare generate"]
    assert all(row["nbytes"] > 0 and row["gb_per_s"] > 0 for row in result["rows"] if row not in bare)
    assert all(min(row["samples"]) <= row["seconds"] <= max(row["samples"]) for row in result["rows"])
    assert all(row["figure"] is None or row["target"] for row in result["rows"])
    assert all(row["pool"]["pinned"]["limit_bytes"] for row in result["rows"])
    assert result["link_gb_per_s_at_the_end"] > 0


def test_a_rate_above_the_link_is_impossible() -> None:
    row = Row("a", "one tensor", samples=[0.5, 1.0, 7.0], nbytes=100)
    assert row.as_dict(link=90)["impossible"]
    assert not row.as_dict(link=96)["impossible"]
    assert not Row("g", "on the device", [1.0], 100, crossed=False).as_dict(link=90)["impossible"]
    assert not Row("c", "bare forward", [1.0], None).as_dict(link=90)["impossible"]
    judgement = judged(row, Spread.of([0.5]), "at least 0.95", False).as_dict(link=100)
    assert (judgement["met"], judgement["figure"]["median"]) == (False, 0.5)


# ---- what is left of a run that does not reach its end ----


def test_a_case_that_breaks_keeps_its_rows_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(setting: Setting) -> Iterator[Row]:
        yield Row("x", "before it", [1.0], 1)
        raise RuntimeError("no closing [/tag]")

    def goes_on(setting: Setting) -> Iterator[Row]:
        yield Row("y", "after it", [1.0], 1)

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
        yield Row("x", "first", [1.0], 1)
        written.extend(json.loads(out.read_text())["rows"])
        yield Row("x", "second", [1.0], 1)

    monkeypatch.setattr(command, "CASES", (two,))
    run(tmp_path)
    assert [row["what"] for row in written] == ["first"]
    assert os.listdir(tmp_path) == ["gpu.json"]


def test_cases_that_find_no_time_left_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run(tmp_path, "--seconds", "-5", "--note", "tests: [3] passed")
    assert code == 0
    assert (result["rows"], result["broken"]) == ([], {})
    names = [*(case.__name__ for case in cases.CASES), "link_at_the_end", "probe"]
    assert result["not_run"] == dict.fromkeys(names, "no time left")
    out = capsys.readouterr().out
    assert out.count("not run: no time left") == len(names)
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
        here.in_turn({"run": run}, TINY.rounds)
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
    list(cases.all_modules_by_others(here))
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

    rates = iter([3.0, 5.0, 3.0])
    monkeypatch.setattr(setting, "_rate", lambda source, target, timer: next(rates))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, device=CPU, pin_memory=False, **rest: empty(*shape, **rest))
    assert setting.measure_link(torch.device("cuda"), TINY, Timer()) == 5.0

    def refuse(result: object) -> None:
        raise RuntimeError("CUDA error: operation not supported")

    monkeypatch.setattr(torch.cuda, "check_error", refuse)
    assert setting.measure_link(torch.device("cuda"), TINY, Timer()) == 3.0, "where no memory can be registered"


def test_pinned_memory_is_there_before_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "GROWING_SECONDS", 0)
    reserved = iter([1, 2, 2, 5, 5, 5, 5, 9, 9])  # it grows while the first run is looked at, and once more after it
    monkeypatch.setattr(setting.nntap, "pool_stats", lambda: {"pinned": {"reserved_bytes": next(reserved)}})
    runs: list[int] = []
    setting.warm(lambda: runs.append(1))
    assert (len(runs), next(reserved)) == (3, 9)


def test_bytes_of_a_contestant_are_those_that_it_keeps() -> None:
    tensor = torch.zeros(4, 8)
    kept = {"": (tensor, tensor), "0": [tensor[1:], torch.zeros(2, dtype=torch.int8)], "1": None}
    counted = setting.Counted(lambda: kept)
    assert (counted.nbytes, counted() is kept, counted.nbytes) == (0, True, 4 * 8 * 4 + 2)


def test_what_torch_had_to_record_is_no_figure() -> None:
    class Odd(torch.Tensor):
        """Torch records it."""

    model = Gives(lambda: torch.ones(2).as_subclass(Odd))
    with pytest.raises(RuntimeError, match="torch recorded, not nntap"):
        contestants.on_nntap(model, model)


# ---- the probe ----


def test_on_a_cpu_there_is_nothing_to_probe() -> None:
    assert probe.probe(CPU) == {}
    assert probe.copied(CPU, piece=1 << 10, nbytes=1 << 14) > 0
    found = probe.seconds_of(lambda: None)
    assert 0 < found["median"] <= found["worst"]


def test_launches_are_timed_while_memory_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinning, launched = threading.Event(), threading.Event()

    def register(pointer: int, nbytes: int, flags: int) -> None:
        pinning.set()
        assert launched.wait(60)

    def launch() -> None:
        if pinning.is_set():
            launched.set()

    cudart = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=lambda pointer: None)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    monkeypatch.setattr(torch.cuda, "check_error", lambda result: None)
    found = probe.pinning(launch, nbytes=1 << 16)
    assert min(found["register"], found["unregister"], found["launch_meanwhile"]["worst"]) > 0


# ---- the check ----


def test_what_the_tests_on_a_gpu_need_does_not_include_nnsight() -> None:
    code = "import sys; sys.modules['nnsight'] = None; sys.path[:0] = ['tests', 'tests/cuda']; import test_on_gpu"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_imported_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ready.main() == 0
    (tmp_path / "nnsight.py").write_text("import what_nnsight_needs")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nnsight")
    monkeypatch.setitem(sys.modules, "pytest_timeout", None)
    assert ready.main() == 1
    halted = "ModuleNotFoundError: import of pytest_timeout halted; None in sys.modules"
    assert capsys.readouterr().out.splitlines() == [
        "cannot be imported: nnsight (ModuleNotFoundError: No module named 'what_nnsight_needs')",
        f"cannot be imported: pytest_timeout ({halted})",
        'how to fix: pip install "nnsight>=0.6.3,<0.9" "pytest-timeout>=2.3"',
    ]


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


PYTEST = """case "$*" in *pytest*) echo "test_a.py::test_b PASSED"; echo "{passed} passed" ;; esac"""


class Machine:
    """One whose commands only write down how they were called, and with how many seconds to do it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.add("python", PYTEST.format(passed=3))
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
        return int(self.call(part).split()[2])

    def call(self, part: str) -> str:
        return next(call for call in self.calls if part in call and ("sanitizer" in part or "sanitizer --" not in call))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


PARTS = ["one_launch", "layouts", "ready", "doctor", "-v -m cuda", "--seconds", "note"]


def test_the_parts_of_the_check_share_nine_minutes(machine: Machine) -> None:
    assert machine.check().returncode == 0
    assert machine.seconds("-m pytest") <= 180
    assert 60 <= machine.seconds("compute-sanitizer --tool") <= 90
    assert 440 <= machine.seconds("benchmarks.gpu --seconds") <= 540 - 5 - 60
    left = int(machine.call("benchmarks.gpu --seconds").split("--seconds ")[1].split()[0])
    assert left == machine.seconds("benchmarks.gpu --seconds") - 30
    names = [next(part for part in PARTS if part in call) for call in machine.calls]
    assert names == ["ready", "doctor", "-v -m cuda", "--seconds", "one_launch", "layouts", "note"]


def test_what_the_parts_before_have_taken_is_not_there_for_those_after(machine: Machine) -> None:
    machine.check(SECONDS="450")  # bash counts on from there
    assert all(1 <= int(call.split()[2]) <= 90 for call in machine.calls)
    assert all(int(call.split()[2]) <= 80 for call in machine.calls[1:])


def test_the_result_says_what_became_of_the_other_parts(machine: Machine) -> None:
    done = machine.check()
    assert machine.call("benchmarks.gpu --seconds").endswith("--note tests: 3 passed")
    assert machine.calls[-1].endswith("gpu.json compute-sanitizer: no errors")
    assert "\n3 passed\n" in done.stdout


def test_a_note_is_added_to_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert note.main(str(out), "before there is one") == 0
    assert not out.exists()
    results.save({"rows": [1], "notes": ["a"]}, out)
    note.main(str(out), "b")
    assert results.load(out) == {"rows": [1], "notes": ["a", "b"]}
    assert capsys.readouterr().out == "before there is one\nb\n"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("echo '========= ERROR: Device not supported'; exit 1", 0, "not run: it does not support this GPU"),
        ("echo '========= Invalid read'; exit 9", 1, "failed"),
        ("exit 124", 0, "not finished in its time"),
        ("echo '========= Invalid __global__ write'; exit 124", 1, "failed"),
        ("echo '========= ERROR SUMMARY: 2 errors'; exit 137", 1, "failed"),
        ("echo '========= ERROR SUMMARY: 0 errors'; exit 0", 0, "no errors"),
        ("exit 5", 1, "failed"),
    ],
)
def test_what_the_sanitizer_says_is_understood(machine: Machine, body: str, code: int, said: str) -> None:
    machine.add("compute-sanitizer", body)
    done = machine.check()
    assert done.returncode == code
    assert machine.calls[-1].endswith(f"compute-sanitizer: {said}")
    assert done.stdout.count("=========") == (1 if said == "failed" and "=" in body else 0), "what it found is shown"


def test_a_part_that_fails_fails_the_check_and_the_others_run(machine: Machine) -> None:
    machine.add("python", 'case "$*" in *pytest*) echo "1 failed"; exit 1 ;; *doctor*) exit 1 ;; esac')
    done = machine.check()
    assert done.returncode == 1
    assert "--note tests: 1 failed" in machine.call("benchmarks.gpu --seconds")


@pytest.mark.parametrize("part", ["doctor", "pytest", "--seconds"])
def test_each_part_s_failure_is_the_check_s(machine: Machine, part: str) -> None:
    machine.add("python", f'case "$*" in *"{part}"*) exit 1 ;; esac')
    machine.add("compute-sanitizer", "exit 0")
    assert machine.check().returncode == 1
    assert "note" in machine.calls[-1]


def test_a_part_that_takes_too_long_is_named(machine: Machine) -> None:
    machine.add("python", 'case "$*" in *pytest*) echo "a.py::test_a PASSED"; echo "a.py::test_b "; exit 124 ;; esac')
    assert machine.check().returncode == 1
    assert "tests: not finished in their time, the last one: a.py::test_b" in machine.call("benchmarks.gpu --seconds")
    machine.add("python", 'case "$*" in *doctor*) exit 124 ;; esac')
    assert "nntap doctor did not end in 60 seconds" in machine.check().stdout
    machine.add("python", 'case "$*" in *ready*) exit 137 ;; esac')
    assert "took over 90 seconds" in machine.check().stdout


def test_nothing_runs_where_something_is_missing(machine: Machine) -> None:
    machine.add("python", "exit 1")
    assert machine.check().returncode == 1
    assert len(machine.calls) == 1
