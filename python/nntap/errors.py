"""The errors of this package that are not plain ``ValueError`` or ``TypeError``, and what fixes an installation."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

OLDEST_TORCH = "2.4"
GET_TORCH = f'pip install --upgrade "torch>={OLDEST_TORCH}"'
GET_NNTAP = "pip install --force-reinstall --no-deps nntap"


class UnknownModuleError(KeyError):
    """A selection or a cache was asked for a module that is not there; names the closest ones."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would show it quoted


class HostMemoryError(MemoryError):
    """A record found no host memory, or the limit was reached and nobody could free any."""


class CudaError(RuntimeError):
    """The CUDA driver refused something, or recording is not possible in the state it is in; names the call."""


class UnsupportedTorchError(ImportError):
    """The installed torch cannot serve the core; names the versions that can."""


class UnsupportedNnsightError(ImportError):
    """nnsight is missing, or its version is not supported; names the versions that are."""


def brief(value: object) -> str:
    """A short text for an error: what a user gave, or of what type it is where that would be long."""
    text = repr(value)
    return text if len(text) <= 80 and "\n" not in text else f"a {type(value).__name__}"


def no_core(error: ImportError) -> ImportError:
    """Says why the compiled core could not be imported, and what to do."""
    there = sorted(path.name for path in Path(__file__).parent.glob("_core.*") if path.suffix != ".pyi")
    wanted = f"_core{EXTENSION_SUFFIXES[0]}"
    if wanted in there or (error.path or "").endswith(wanted):
        found = str(error)
    elif not there:
        found = f"{wanted} is not there"
    else:
        found = f"this Python needs {wanted}, and nntap was installed for another one: {', '.join(there)}"
    return ImportError(
        f"nntap's compiled core cannot be imported ({found}): {sys.executable} -m {GET_NNTAP}", name="nntap._core"
    )
