"""Running nnsight's ``tracer.cache()`` on the core."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from nntap.errors import UnsupportedNnsightError

if TYPE_CHECKING:
    from nntap.nnsight.adapter import Installation

SUPPORTED = "0.6.3, 0.7.0 and 0.8.0 to 0.8.x"

# What each adapter serves: one release, because others of 0.6 and 0.7 have not been run, or a minor version.
_ADAPTERS = {(0, 6, 3): "v0_6", (0, 7, 0): "v0_7", (0, 8): "v0_8"}

_installation: Installation | None = None


def supported_version(version: str) -> bool:
    """Whether this release of nnsight has an adapter here."""
    return _adapter_name(version) is not None


def install() -> None:
    """Makes every ``tracer.cache()`` from here on run on the core, in this process. May be called again.

    Raises:
        UnsupportedNnsightError: If nnsight is missing, its version is not supported, or it lacks a name that is
            relied on; nothing is changed then.
        UnsupportedTorchError: If the installed torch cannot serve the core.
    """
    _find().put()


def uninstall() -> None:
    """Gives ``tracer.cache()`` back to nnsight. May be called again. Existing caches stay as they are."""
    if _installation is not None:
        _installation.take_back()


@contextmanager
def installed() -> Iterator[None]:
    """`install` for a ``with`` block. Leaves an installation that was there before as it was.

    Raises:
        UnsupportedNnsightError: As `install` does, when the block is entered.
        UnsupportedTorchError: If the installed torch cannot serve the core.
    """
    found = _find()
    before = found.active
    found.put()
    try:
        yield
    finally:
        if not before:
            found.take_back()


def _find() -> Installation:
    global _installation
    version = _installed_version()
    name = _adapter_name(version)
    if name is None:
        raise UnsupportedNnsightError(
            f'nnsight {version} is installed; nntap supports nnsight {SUPPORTED}: pip install "nntap[nnsight]" '
            "(nntap.capture records without nnsight)"
        )
    if _installation is None:
        from nntap.nnsight.adapter import Installation

        try:
            adapter = import_module(f"nntap.nnsight.{name}")
        except ImportError as error:
            raise UnsupportedNnsightError(
                f"nnsight {version} lacks something that nntap relies on ({error}); nntap supports nnsight {SUPPORTED}"
            ) from error
        _installation = Installation(adapter, version)
    return _installation


def _installed_version() -> str:
    try:
        return metadata.version("nnsight")
    except metadata.PackageNotFoundError:
        raise UnsupportedNnsightError(
            f'nnsight is not installed; nntap supports nnsight {SUPPORTED}: pip install "nntap[nnsight]"'
        ) from None


def _adapter_name(version: str) -> str | None:
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return None
    release = tuple(map(int, numbers.groups()))
    return _ADAPTERS.get(release) or _ADAPTERS.get(release[:2])
