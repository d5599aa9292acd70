"""The errors of this package that are not plain ``ValueError`` or ``TypeError``."""

from __future__ import annotations


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
