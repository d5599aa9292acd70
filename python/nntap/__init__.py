"""Record the activations of PyTorch models through a compiled core.

``nntap.install()`` makes every ``tracer.cache()`` of nnsight run on it; ``nntap.capture(model)`` records any
``torch.nn.Module`` without nnsight. Importing this package imports neither torch nor the core: the names below are
loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nntap import forks  # noqa: F401  (notices forks from now on)
from nntap._version import __version__

if TYPE_CHECKING:
    from nntap.build import build_info
    from nntap.cache import Cache, CacheView, Entry
    from nntap.errors import (
        CudaError,
        HostMemoryError,
        UnknownModuleError,
        UnsupportedNnsightError,
        UnsupportedTorchError,
    )
    from nntap.memory import pool_stats, reserve, set_limits, trim
    from nntap.nnsight import install, installed, uninstall
    from nntap.standalone import capture
    from nntap.stats import Stats

_HOMES = {
    "Cache": "nntap.cache",
    "CacheView": "nntap.cache",
    "CudaError": "nntap.errors",
    "Entry": "nntap.cache",
    "HostMemoryError": "nntap.errors",
    "Stats": "nntap.stats",
    "UnknownModuleError": "nntap.errors",
    "UnsupportedNnsightError": "nntap.errors",
    "UnsupportedTorchError": "nntap.errors",
    "build_info": "nntap.build",
    "capture": "nntap.standalone",
    "install": "nntap.nnsight",
    "installed": "nntap.nnsight",
    "pool_stats": "nntap.memory",
    "reserve": "nntap.memory",
    "set_limits": "nntap.memory",
    "trim": "nntap.memory",
    "uninstall": "nntap.nnsight",
}
_NEED_TORCH = {"nntap.cache", "nntap.nnsight", "nntap.standalone"}

__all__ = [
    "Cache",
    "CacheView",
    "CudaError",
    "Entry",
    "HostMemoryError",
    "Stats",
    "UnknownModuleError",
    "UnsupportedNnsightError",
    "UnsupportedTorchError",
    "__version__",
    "build_info",
    "capture",
    "install",
    "installed",
    "pool_stats",
    "reserve",
    "set_limits",
    "trim",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nntap' has no attribute {name!r}")
    try:
        if _HOMES[name] in _NEED_TORCH:
            import_module("nntap.core")  # the first to import torch, because it says what to do where that fails
        value = getattr(import_module(_HOMES[name]), name)
    except ImportError as error:
        if "_core" in str(error):
            from nntap.errors import no_core

            raise no_core(error) from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
