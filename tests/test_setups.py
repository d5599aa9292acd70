"""Old, missing and odd set-ups: each says what is wrong and what to do about it, or works."""

from __future__ import annotations

import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

import nntap
from helpers import assert_script_runs, run_script
from nntap import exchange


def last_line(script: str, *arguments: str) -> str:
    """What the script's uncaught error says."""
    done = run_script(script, *arguments)
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


# ---- torch ----


USES = ["capture", "install()", "Cache"]


@pytest.mark.parametrize("use", USES)
def test_without_torch_the_error_names_the_version_and_the_command(use):
    said = last_line(f"import sys; sys.modules['torch'] = None; import nntap; nntap.{use}")
    assert said.startswith("nntap.errors.UnsupportedTorchError: nntap needs torch 2.4 or later")
    assert said.endswith("pip install torch")


@pytest.mark.parametrize("use", USES)
def test_with_a_torch_that_is_too_old_the_error_names_it_and_the_command(use, tmp_path):
    (tmp_path / "torch.py").write_text("__version__ = '2.3.1'\nclass Tensor: pass\n")
    said = last_line(f"import sys; sys.path.insert(0, sys.argv[1]); import nntap; nntap.{use}", str(tmp_path))
    assert said == (
        "nntap.errors.UnsupportedTorchError: torch 2.3.1 is too old; nntap needs torch 2.4 or later: "
        'pip install --upgrade "torch>=2.4"'
    )


WITHOUT_API = f"torch.Tensor.{exchange.ATTRIBUTE} = None; del torch.Tensor.{exchange.ATTRIBUTE}"
GET_PACKAGE = "pip install --upgrade torch-c-dlpack-ext"


@pytest.mark.parametrize(
    ("package", "reason", "fix"),
    [
        (None, "the package that has it cannot be imported", GET_PACKAGE),
        ("raise ImportError('no library for this torch')", "no library for this torch", f"{GET_PACKAGE}, or pip"),
        ("raise OSError('undefined symbol: c10')", "undefined symbol: c10", f"{GET_PACKAGE}, or pip"),
        ("", "torch-c-dlpack-ext is too old", GET_PACKAGE),
    ],
)
def test_without_an_exchange_api_torch_makes_the_records_and_it_is_said(package, reason, fix, tmp_path):
    if package is not None:
        (tmp_path / "torch_c_dlpack_ext.py").write_text(package)
    script = f"""
        import sys, warnings
        sys.path.insert(0, sys.argv[1])
        {"" if package is not None else "sys.modules['torch_c_dlpack_ext'] = None"}
        import torch
        {WITHOUT_API}
        torch.__version__ = "2.9.1"
        import nntap
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            nntap.capture
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(inplace=True))
        x = torch.randn(3, 4)
        with torch.no_grad(), nntap.capture(model, include_inputs=True, dtype="float16") as cache:
            model(x)
        assert torch.equal(cache["0"].output, model[0](x).half()) and torch.equal(cache["0"].input, x.half())
        print(cache.stats.slow, *(w.message for w in said))
    """
    done = run_script(script, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{'torch without a DLPack exchange API': 6} nntap records by torch's own copies here")
    assert "torch 2.9.1 has no DLPack exchange API of its own" in done.stdout
    assert reason in done.stdout
    assert f"Fix it: {fix}" in done.stdout


def test_the_package_for_older_torch_is_loaded_without_starting_the_driver(tmp_path):
    # It asks torch.cuda.is_available(), which starts the driver unless this variable is set; a process that then forks
    # could not use the GPU in its children.
    (tmp_path / "torch_c_dlpack_ext.py").write_text(
        "import os, torch\nprint('asked', os.environ['PYTORCH_NVML_BASED_CUDA_CHECK'])\n"
        f"torch.Tensor.{exchange.ATTRIBUTE} = None\n"
    )
    script = f"""
        import os, sys
        sys.path.insert(0, sys.argv[1])
        import torch
        from nntap import exchange
        {WITHOUT_API}
        for before in (None, "0"):
            if before is not None:
                os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = before
            exchange._load_package()
            print(os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"))
            del sys.modules["torch_c_dlpack_ext"]
    """
    done = run_script(script, str(tmp_path))
    assert (done.returncode, done.stdout.split("\n")[:-1]) == (0, ["asked 1", "None", "asked 1", "0"]), done.stderr


def test_without_torch_the_core_says_how_it_was_built():
    assert_script_runs(
        """
        import sys
        sys.modules["torch"] = None
        import nntap
        print(nntap.build_info()["version"], nntap.pool_stats()["slabs"])
        """,
        says=f"{nntap.__version__} 0",
    )


def test_without_torch_doctor_does_not_send_anyone_to_reinstall_nntap():
    done = run_script("import sys; sys.modules['torch'] = None; from nntap.cli import main; sys.exit(main(['doctor']))")
    assert done.returncode == 1, done.stderr
    assert "Fix first: torch, " in done.stdout
    assert "--force-reinstall" not in done.stdout


NO_NUMPY = "import sys; sys.modules['numpy'] = None\n"


def test_without_numpy_records_are_what_the_modules_gave_back():
    done = run_script(
        NO_NUMPY
        + """
import torch, nntap
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(inplace=True))
x = torch.randn(3, 4)
with nntap.capture(model, include_inputs=True) as cache:
    out = model(x)
assert torch.equal(cache["0"].output, model[0](x))
assert torch.equal(cache[""].output, out)
assert torch.equal(cache["0"].input, x)
with nntap.capture(model, dtype="bfloat16") as cache:
    model(x)
assert cache["0"].output.dtype is torch.bfloat16
str(cache)
print("all recorded", cache.stats.slow)
"""
    )
    # Its error stream may hold torch's own warning that there is no NumPy.
    assert (done.returncode, done.stdout.strip()) == (0, "all recorded {}"), done.stderr


def test_without_numpy_doctor_is_content():
    done = run_script(NO_NUMPY + "from nntap.cli import main; sys.exit(main(['doctor']))")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nCapture works.\n" in done.stdout


# ---- the compiled core ----


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the installed package whose compiled core can be spoilt; gives the core's file."""
    from nntap import _core

    package = tmp_path / "nntap"
    shutil.copytree(Path(nntap.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "_core*.so"))
    return package / Path(_core.__file__).name


def said_by(core: Path) -> str:
    return last_line(
        """
        import sys
        # Python's own finders are classes; an editable install has an object that comes before the path.
        sys.meta_path = [finder for finder in sys.meta_path if isinstance(finder, type)]
        sys.path.insert(0, sys.argv[1])
        import nntap
        assert nntap.__file__.startswith(sys.argv[1]), nntap.__file__
        nntap.build_info()
        """,
        str(core.parents[1]),
    )


MEND = f"{sys.executable} -m pip install --force-reinstall --no-deps nntap"


def test_a_core_for_another_python_is_told_from_none(copy):
    (copy.parent / "_core.cpython-399-x86_64-linux-gnu.so").write_bytes(b"")
    said = said_by(copy)
    assert f"this Python needs _core{sysconfig.get_config_var('EXT_SUFFIX')}, and nntap was installed for" in said
    assert "_core.cpython-399-x86_64-linux-gnu.so" in said
    assert said.endswith(MEND)


def test_a_core_that_is_not_there_is_told(copy):
    said = said_by(copy)
    assert f"({copy.name} is not there)" in said
    assert said.endswith(MEND)


def test_a_core_that_cannot_be_loaded_is_told_with_the_loaders_words(copy):
    copy.write_bytes(b"no shared object")
    said = said_by(copy)
    assert "file too short" in said or "invalid ELF header" in said
    assert said.endswith(MEND)


# ---- the processor ----


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="reads x86-64's /proc/cpuinfo")
def test_casts_use_the_best_instructions_that_the_system_lists():
    flags = set(
        next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    )
    avx2 = {"avx2", "f16c"} <= flags
    best = "avx512" if avx2 and {"avx512f", "avx512bw", "avx512vl"} <= flags else "avx2+f16c" if avx2 else "portable"
    assert nntap.build_info()["cpu_casts"] == best


# ---- the command line ----


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["doctor", "--help"], ["--version"]])
def test_help_needs_neither_torch_nor_the_core(arguments):
    script = """
        import sys
        sys.modules["torch"] = sys.modules["nntap._core"] = None
        from nntap.cli import main
        main(sys.argv[1:])
    """
    done = run_script(script, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nntap" in done.stdout
