"""torch's DLPack exchange API, by which the core sees tensors: torch's own from 2.10 on, before that of a package."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from typing import Any

from nntap.errors import GET_TORCH, OLDEST_TORCH, UnsupportedTorchError

ATTRIBUTE = "__dlpack_c_exchange_api__"
PACKAGE = "torch-c-dlpack-ext"
GET_PACKAGE = f"pip install --upgrade {PACKAGE}"
OLDEST_WITH_OWN = "2.10"
GET_OWN = f'pip install --upgrade "torch>={OLDEST_WITH_OWN}"'


def version_of(torch: Any) -> tuple[int, int]:
    """The first two numbers of torch's version; (0, 0) where it has none."""
    return _numbers(str(torch.__version__))


def _numbers(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def old(torch: Any) -> bool:
    """Whether nntap cannot work with this torch, whatever is installed beside it."""
    return not hasattr(torch.Tensor, ATTRIBUTE) and version_of(torch) < _numbers(OLDEST_TORCH)


def has_own(torch: Any) -> bool:
    return version_of(torch) >= _numbers(OLDEST_WITH_OWN)


@dataclass(frozen=True)
class Problem:
    """Why torch has no API here, and the command that fixes it."""

    found: str
    fix: str


def provide(torch: Any) -> Problem | None:
    """Gives an older torch the API, or says why that cannot be; then torch itself has to make the records.

    Raises:
        UnsupportedTorchError: If this torch is too old for nntap.
    """
    if old(torch):
        raise UnsupportedTorchError(
            f"torch {torch.__version__} is too old; nntap needs torch {OLDEST_TORCH} or later: {GET_TORCH}"
        )
    if hasattr(torch.Tensor, ATTRIBUTE):
        return None
    none = f"torch {torch.__version__} has no DLPack exchange API of its own ({OLDEST_WITH_OWN} and later have)"
    try:
        _load_package()
    except ModuleNotFoundError as error:
        return Problem(f"{none}, and the package that has it cannot be imported ({error})", GET_PACKAGE)
    except Exception as error:  # a library that does not load, a package without one for this torch
        return Problem(f"{none}, and {PACKAGE} has none that works with it ({error})", f"{GET_PACKAGE}, or {GET_OWN}")
    if not hasattr(torch.Tensor, ATTRIBUTE):
        return Problem(f"{none}, and {PACKAGE} is too old", GET_PACKAGE)
    return None


def _load_package() -> None:
    """Imports it, which sets torch's attribute.

    It asks torch whether there is a GPU. torch answers without starting the driver if this variable says so: a process
    that only loads nntap can still fork children that use the GPU.
    """
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        importlib.import_module("torch_c_dlpack_ext")
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
