"""`nntap doctor`: what is installed, what is missing or broken, and how to fix it.

Nothing heavy is imported with this module: it has to speak where torch, or nntap's core, cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from nntap import exchange
from nntap._version import __version__
from nntap.errors import GET_NNTAP, GET_TORCH, OLDEST_TORCH

Status = Literal["ok", "missing", "broken"]

OLDEST_PYTHON = (3, 10)
GET_TORCH_OF_DEMO = 'pip install --upgrade "torch>=2.6"'  # the oldest that transformers 5 works with


@dataclass(frozen=True)
class Check:
    """One line of the report.

    `found` is what is there, `fix` what to do where it is not ok.
    `needed`: without it `nntap.capture` cannot work.
    """

    name: str
    status: Status
    found: str
    fix: str = ""
    needed: bool = False


def run_checks() -> list[Check]:
    """All checks, in the order in which to fix what they find. None of them raises."""
    checks = [
        Check("nntap", "ok", __version__),
        _python(),
        Check("platform", "ok", _platform()),
    ]
    for name, check, needed in _CHECKS:
        try:
            checks += check()
        except Exception as error:  # a broken installation can raise anything; the report has to go on
            checks.append(Check(name, "broken", _reason(error), GET_NNTAP, needed))
    return checks


def exit_code(checks: Sequence[Check]) -> int:
    """0 when everything that capture needs is ok, else 1."""
    return 1 if any(check.needed and check.status != "ok" for check in checks) else 0


def print_report(checks: Sequence[Check], file: TextIO) -> None:
    """A line a check, with a second line on how to fix what is not ok, and the conclusion."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<8} {check.name:<{width}}  {check.found}", file=file)
        if check.status != "ok" and check.fix:
            print(f"{'':<8} {'':<{width}}  how to fix: {check.fix}", file=file)
    print(file=file)
    bad = [check.name for check in checks if check.needed and check.status != "ok"]
    if bad:
        print(f"Capture cannot work. Fix first: {', '.join(bad)}.", file=file)
        return
    print("Capture works.", file=file)
    optional = [check.name for check in checks if check.status != "ok"]
    if optional:
        print(f"Not needed for it, but not ok: {', '.join(optional)}.", file=file)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _platform() -> str:
    libc = " ".join(platform.libc_ver())  # of glibc; empty on others
    return ", ".join(filter(None, [f"{platform.system()} {platform.release()}", platform.machine(), libc.strip()]))


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("Python", "ok", found, needed=True)
    return Check("Python", "broken", found, "use Python 3.10 or later", needed=True)


def _import_torch() -> Any:
    return importlib.import_module("torch")


def _torch() -> list[Check]:
    needed = f"{OLDEST_TORCH} or later is needed"
    try:
        torch = _import_torch()
    except ModuleNotFoundError as error:
        if error.name not in (None, "torch"):
            return [Check("torch", "broken", _reason(error), GET_TORCH, needed=True)]
        return [Check("torch", "missing", f"not installed; {needed}", GET_TORCH, needed=True)]
    except Exception as error:  # a library that does not load, an extension built for another Python, ...
        return [Check("torch", "broken", f"cannot be imported: {_reason(error)}", GET_TORCH, needed=True)]
    version = str(torch.__version__)
    if exchange.old(torch):
        return [Check("torch", "broken", f"{version}; {needed}", GET_TORCH, needed=True)]
    return [Check("torch", "ok", version, needed=True)]


def _torch_works() -> bool:
    return all(check.status == "ok" for check in _torch())


def _exchange_api() -> list[Check]:
    name = "DLPack exchange API"
    if not _torch_works():
        return [Check(name, "missing", "not tried: it needs torch", "fix torch first")]
    torch = _import_torch()
    problem = exchange.provide(torch)
    if problem is not None:
        found = f"{problem.found}: records are made by torch's own copies, right but slower"
        return [Check(name, "broken", found, problem.fix)]
    own = exchange.has_own(torch)
    return [Check(name, "ok", "torch's own" if own else f"{exchange.PACKAGE} {_version_of(exchange.PACKAGE)}")]


def _core() -> list[Check]:
    import nntap

    info = nntap.build_info()
    return [
        Check(
            "compiled core",
            "ok",
            f"{info['version']}, {info['compiler']}, DLPack {info['dlpack']}",
            needed=True,
        ),
        Check(
            "CPU features",
            "ok",
            f"casts use {info['cpu_casts']}, large copies {info['cpu_threads']} of torch's threads",
        ),
        Check("built for", "ok", ", ".join(info["devices"])),
    ]


def _capture() -> list[Check]:
    """A real capture, compared with what the module gave back."""
    if not _torch_works():
        return [Check("capture", "broken", "not tried: it needs torch", "fix torch first", needed=True)]
    import nntap

    torch = _import_torch()

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(inplace=True))
    torch.nn.init.constant_(model[0].weight, -1.0)  # below zero: the ReLU writes over all that the record is of
    inputs = torch.ones(2, 8)
    with torch.no_grad():
        expected = model[0](inputs)
        with nntap.capture(model) as cache:
            output = model(inputs)
    if torch.equal(cache["0"].output, expected) and torch.equal(cache[""].output, output):
        found = "the records of a small model are what its modules gave back"
        return [Check("capture", "ok", found, needed=True)]
    found = "the records of a small model differ from what its modules gave back"
    return [Check("capture", "broken", found, GET_NNTAP, needed=True)]


def _pools() -> list[Check]:
    import nntap

    stats = nntap.pool_stats()
    limit = stats["limit_bytes"]
    return [
        Check(
            "pool",
            "ok",
            f"{stats['slabs']} slabs, {_mib(stats['reserved_bytes'])} reserved, "
            f"{_mib(stats['used_bytes'])} in use, {_mib(stats['peak_bytes'])} at the peak",
        ),
        Check("limit", "ok", f"{_mib(limit)} of host memory" if limit else "none (nntap.set_limits sets one)"),
    ]


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def _gpu() -> list[Check]:
    import nntap

    cuda = nntap.build_info()["cuda"]
    if not cuda["installed"]:
        return [Check("GPU", "ok", f"none: {cuda['problem']}")]
    if cuda["problem"] is not None:
        found = "none can be used: models on it are recorded by torch's own copies"
        return [Check("GPU", "broken", found, cuda["problem"])]
    checks = [Check("GPU driver", "ok", f"for CUDA {cuda['driver']}")]
    for number, device in enumerate(cuda["devices"]):
        capability = ".".join(map(str, device["capability"]))
        found = f"{device['name']}, compute capability {capability}, kernel {device['kernel']}"
        status: Status = "broken" if device["kernel"] == "none" else "ok"
        checks.append(Check(f"GPU {number}", status, found, "its tensors are recorded by torch's own copies"))
        if status == "ok":
            checks.append(_link(number))
    return checks


def _link(number: int) -> Check:
    """How fast records come from a GPU."""
    torch = _import_torch()
    name = f"link of GPU {number}"
    if not torch.cuda.is_available():
        return Check(name, "missing", f"torch {torch.__version__} has no CUDA", "install a CUDA build of torch")
    return Check(name, "ok", f"records arrive at {_gb_per_s(f'cuda:{number}'):.1f} GB/s")


def _gb_per_s(device: str) -> float:
    """10^9 bytes a second, from a module's call to the complete record of 64 MiB: the best of three."""
    import nntap

    torch = _import_torch()
    model, tensor = torch.nn.Identity(), torch.zeros(64 << 20, dtype=torch.uint8, device=device)
    _seconds_of_record(model, tensor)  # readies the device, and what the first time takes
    with suppress(nntap.HostMemoryError):  # a limit: then this is what it makes of the speed
        nntap.reserve(tensor.nbytes)
    return float(tensor.nbytes / min(_seconds_of_record(model, tensor) for _ in range(3)) / 1e9)


def _seconds_of_record(model: Any, tensor: Any) -> float:
    """The record is dropped: the next one finds its memory."""
    import nntap

    with nntap.capture(model) as cache:
        begin = time.perf_counter()
        model(tensor)
        cache[""].output  # noqa: B018  (waits for it)
        return time.perf_counter() - begin


def _nnsight() -> list[Check]:
    version = _version_of("nnsight")
    get = 'pip install "nntap[nnsight]"'
    if version is None:
        found = "not installed; only tracer.cache() needs it, nntap.capture does not"
        return [Check("nnsight", "missing", found, get)]
    from nntap.nnsight import SUPPORTED, supported_version

    if not supported_version(version):
        return [Check("nnsight", "broken", f"{version} is not supported; supported is {SUPPORTED}", get)]
    import nntap

    try:
        with nntap.installed():
            pass
    except Exception as error:  # nnsight or torch may fail in their own ways
        return [Check("nnsight", "broken", f"{version}, but nntap.install() fails: {_reason(error)}", get)]
    return [Check("nnsight", "ok", f"{version} (supported: {SUPPORTED}); nntap.install() works")]


def _transformers() -> list[Check]:
    (check,) = checks = _package("transformers", "the demo's models")
    if check.status != "ok" or not _torch_works():
        return checks
    utils = importlib.import_module("transformers.utils")
    if utils.is_torch_available():
        return checks
    found = f"{check.found} does not work with torch {_import_torch().__version__}"
    return [Check("transformers", "broken", found, f'pip install --upgrade "transformers<5", or {GET_TORCH_OF_DEMO}')]


def _rich() -> list[Check]:
    return _package("rich", "tables and progress bars of the demo")


def _matplotlib() -> list[Check]:
    return _package("matplotlib", "nntap demo --plot")


def _package(name: str, purpose: str) -> list[Check]:
    get = 'pip install "nntap[demo]"'
    if importlib.util.find_spec(name) is None:
        return [Check(name, "missing", f"not installed; used for: {purpose}", get)]
    return [Check(name, "ok", _version_of(name) or "version unknown")]


def _weights() -> list[Check]:
    try:
        from nntap.demo.extras import INSTALL, WEIGHTS_PACKAGE, weights_folder
    except ImportError:
        if _torch_works():
            raise
        return [Check("demo weights", "missing", "not tried: the demo needs torch", "fix torch first")]

    folder = weights_folder()
    if folder is None:
        return [Check("demo weights", "missing", f"{WEIGHTS_PACKAGE} is not installed", INSTALL)]
    return [Check("demo weights", "ok", f"{WEIGHTS_PACKAGE} {_version_of(WEIGHTS_PACKAGE)}, {folder}")]


# (name in the report if it raises, check, needed)
_CHECKS: tuple[tuple[str, Callable[[], list[Check]], bool], ...] = (
    ("torch", _torch, True),
    ("DLPack exchange API", _exchange_api, False),
    ("compiled core", _core, True),
    ("capture", _capture, True),
    ("pool", _pools, False),
    ("GPU", _gpu, False),
    ("nnsight", _nnsight, False),
    ("transformers", _transformers, False),
    ("demo weights", _weights, False),
    ("rich", _rich, False),
    ("matplotlib", _matplotlib, False),
)
