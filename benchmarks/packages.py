"""Packages that some contestants come from."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.models import Unsuited


def needs_package(name: str) -> None:
    """Raises `Unsuited` with what to do where a package is missing or cannot be imported."""
    if find_spec(name) is None:
        raise Unsuited(f"{name} is not installed: pip install {name.replace('_', '-')}")
    try:
        import_module(name)
    except Exception as error:  # a build for another torch, a missing library, ...: any kind
        raise Unsuited(f"{name} cannot be imported ({type(error).__name__}: {error})") from error
