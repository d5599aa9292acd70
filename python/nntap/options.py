"""What a user may ask of a recording, checked before the model runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from nntap import _core
from nntap.core import INPUTS, OUTPUT, Recorder
from nntap.nest import rebuild
from nntap.slow import slow_snapshot

# DLPack's code and the bits of each type that torch converts to. Quantised types need a scale; bit types and sub-byte
# integers have no arithmetic. https://github.com/dmlc/dlpack/blob/main/include/dlpack/dlpack.h
_DLPACK = {
    getattr(torch, name): pair
    for name, pair in {
        **{f"float{bits}": (2, bits) for bits in (64, 32, 16)},
        "bfloat16": (4, 16),
        **{"float8_e4m3fn": (10, 8), "float8_e4m3fnuz": (11, 8), "float8_e5m2": (12, 8), "float8_e5m2fnuz": (13, 8)},
        "float8_e8m0fnu": (14, 8),
        **{f"complex{bits}": (5, bits) for bits in (128, 64, 32)},
        **{f"int{bits}": (0, bits) for bits in (64, 32, 16, 8)},
        **{f"uint{bits}": (1, bits) for bits in (64, 32, 16, 8)},
        "bool": (6, 8),
    }.items()
    if hasattr(torch, name)
}
_DLPACK_DEVICES = {"cpu": 1, "cuda": 2}
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _DLPACK}
_ALIASES = {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "int": torch.int32,
    "long": torch.int64,
    "short": torch.int16,
}


def as_dtype(dtype: Any) -> torch.dtype | None:
    """The torch dtype of a dtype, its name or None.

    Raises:
        ValueError: If the name is unknown, or torch cannot convert to it.
        TypeError: If it is neither.
    """
    if dtype is None:
        return None
    allowed = f"a torch dtype or its name, one of {', '.join(_DTYPES)}; or None"
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
        found = _DTYPES.get(name) or _ALIASES.get(name)
        if found is None:
            raise ValueError(f"dtype={dtype!r} is not allowed: give {allowed}")
        return found
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype={dtype!r} is not allowed: give {allowed}")
    if dtype not in _DTYPES.values():
        raise ValueError(f"dtype={dtype} is not allowed, torch does not convert to it: give {allowed}")
    return dtype


def as_device(device: Any) -> torch.device | None:
    """The torch device of a device, its name, an index or None (where each tensor is).

    Raises:
        ValueError: If torch knows no such device, or this machine has none.
        TypeError: If it is something else.
    """
    if device is None:
        return None
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(f"device={device!r} is not allowed: give a device, its name such as 'cpu', or None")
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise ValueError("device='meta' is not allowed: a record there has no values; give 'cpu' or None")
        if found.type != "cpu":
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"device={device!r} is not allowed on this machine ({reason}): give 'cpu', None to leave each tensor "
            "on its own device, or a device that torch can use here"
        ) from error
    return found


def as_flag(name: str, value: Any) -> bool:
    """The flag itself. Raises TypeError if it is not True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is not allowed: give True or False")
    return value


@dataclass(frozen=True)
class Options:
    """One recording's options, in torch's own types."""

    device: torch.device | None
    dtype: torch.dtype | None
    detach: bool
    include_output: bool
    include_inputs: bool

    @staticmethod
    def check(device: Any, dtype: Any, detach: Any, include_output: Any, include_inputs: Any) -> Options:
        """From what a user gave.

        Raises:
            ValueError: For a dtype or device that is not allowed, or when nothing would be recorded.
            TypeError: For an argument of the wrong type.
        """
        try:
            return _checked(device, dtype, detach, include_output, include_inputs)
        except TypeError:
            pass  # of a type that is not allowed, or that cannot be remembered
        return _check(device, dtype, detach, include_output, include_inputs)

    @property
    def slots(self) -> list[int]:
        """The recorder slots to fill: INPUTS, OUTPUT or both."""
        return [INPUTS] * self.include_inputs + [OUTPUT] * self.include_output

    def recorder(self, paths: int) -> Recorder:
        """A recorder of that many module paths."""
        if self.dtype == torch.float8_e4m3fn:
            # torch's code for each kind of device changed in another release.
            on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
            _core.set_e4m3fn_overflows_from(_e4m3fn_overflows_from("cuda" if on_gpu else "cpu"))
        return Recorder(
            paths,
            slow_snapshot(self.device, self.dtype, self.detach),
            rebuild,
            pairs=self.include_output and self.include_inputs,
            dtype=None if self.dtype is None else _DLPACK[self.dtype],
            target=None if self.device is None else self._target(self.device),
            slow_reason=self._slow_reason(),
        )

    def _slow_reason(self) -> str | None:
        if not self.detach:
            return "detach=False"
        if self.device is not None and self.device.type not in _DLPACK_DEVICES:
            return f"target device {self.device.type}"
        return None

    @staticmethod
    def _target(device: torch.device) -> tuple[int, int]:
        index = device.index
        if device.type == "cuda" and index is None:
            index = torch.cuda.current_device()
        return _DLPACK_DEVICES.get(device.type, 0), index or 0


@functools.lru_cache
def _e4m3fn_overflows_from(device: str) -> list[tuple[int, int]]:
    """The types, as DLPack numbers them, of which torch makes nan where float8_e4m3fn cannot hold the value."""
    large = {torch.float64: 1e6, torch.float32: 1e6, torch.float16: 6e4, torch.bfloat16: 1e6, torch.float8_e5m2: 5e4}
    made = {
        dtype: torch.tensor(value, device=device).to(dtype).to(torch.float8_e4m3fn) for dtype, value in large.items()
    }
    return [_DLPACK[dtype] for dtype, value in made.items() if value.isnan().item()]


def _check(device: Any, dtype: Any, detach: Any, include_output: Any, include_inputs: Any) -> Options:
    options = Options(
        as_device(device),
        as_dtype(dtype),
        as_flag("detach", detach),
        as_flag("include_output", include_output),
        as_flag("include_inputs", include_inputs),
    )
    if not (options.include_output or options.include_inputs):
        raise ValueError("include_output=False and include_inputs=False would record nothing: set one of them to True")
    return options


_checked = functools.lru_cache(maxsize=64, typed=True)(_check)  # a capture is entered for every batch
