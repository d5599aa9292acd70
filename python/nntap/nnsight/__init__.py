"""Running nnsight's ``tracer.cache()`` on the core."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType

from nntap.errors import UnsupportedNnsightError

SUPPORTED = "0.8.1 to 0.8.x"


def supported_version(version: str) -> bool:
    """Whether this release of nnsight has an adapter here."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    major, minor, patch = map(int, numbers.groups())
    return (major, minor) == (0, 8) and patch >= 1


def install() -> None:
    """Makes every ``tracer.cache()`` from here on run on the core, in this process. May be called again.

    Raises:
        UnsupportedNnsightError: If nnsight is missing, or its version is not supported.
        UnsupportedTorchError: If the installed torch cannot serve the core.
    """
    _adapter().install()


def uninstall() -> None:
    """Gives ``tracer.cache()`` back to nnsight. May be called again. Existing caches stay as they are.

    Raises:
        UnsupportedNnsightError: If nnsight is missing, or its version is not supported.
    """
    _adapter().uninstall()


@contextmanager
def installed() -> Iterator[None]:
    """`install` for a ``with`` block. Leaves an installation that was there before as it was."""
    adapter = _adapter()
    before = adapter.is_installed()
    adapter.install()
    try:
        yield
    finally:
        if not before:
            adapter.uninstall()


def _adapter() -> ModuleType:
    try:
        version = metadata.version("nnsight")
    except metadata.PackageNotFoundError:
        raise UnsupportedNnsightError(
            f'nnsight is not installed; nntap supports nnsight {SUPPORTED}: pip install "nntap[nnsight]"'
        ) from None
    if not supported_version(version):
        raise UnsupportedNnsightError(
            f"nnsight {version} is installed; nntap supports nnsight {SUPPORTED}: pip install "
            '"nntap[nnsight]" (nntap.capture records without nnsight)'
        )
    from nntap.nnsight import v0_8

    return v0_8
