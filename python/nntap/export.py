"""Writing a cache to a safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from nntap.nest import Place, leaves_of

if TYPE_CHECKING:
    from nntap.cache import Cache


def save_safetensors(cache: Cache, path: str | os.PathLike[str]) -> None:
    """Writes every tensor of the cache under the name of its place; see ``Cache.save``."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError(
            'cache.save() writes safetensors files, and safetensors is not installed: pip install "nntap[safetensors]"'
        ) from error
    values = _by_name(cache)
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    others = {name: repr(value) for name, value in values.items() if name not in tensors}
    metadata = {"format": "pt", "nntap.others": json.dumps(others)}
    for name, tensor in tensors.items():
        _check(name, tensor)
    save_file(_apart(tensors), os.fspath(path), metadata=metadata)


def _check(name: str, tensor: torch.Tensor) -> None:
    """Raises ValueError for a tensor that the file cannot hold."""
    if tensor.is_meta:
        kind = "has no memory (device meta)"
    elif tensor.layout is not torch.strided:
        kind = f"is of layout {tensor.layout}"
    elif tensor.is_nested:
        kind = "is nested"
    elif tensor.is_quantized or tensor.dtype in (torch.complex128, torch.complex32):
        kind = f"is of {tensor.dtype}"
    else:
        return
    raise ValueError(
        f"{name!r} {kind}, which a safetensors file cannot hold: select other modules, or save cache.to_dict() with "
        "torch.save"
    )


def _by_name(cache: Cache) -> dict[str, Any]:
    """Everything recorded, but None, under its name in the file. Raises ValueError where two have the same."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for call, slot, keys, value in _leaves(cache):
        name = ".".join(map(str, (call, slot, *keys))).lstrip(".")
        place = f"{slot}{''.join(f'[{key!r}]' for key in keys)} of {call!r}"
        if name in values:
            raise ValueError(
                f"two values would be called {name!r} in the file: {places[name]} and {place}; select other modules, "
                "or save cache.to_dict() with torch.save"
            )
        values[name], places[name] = value, place
    return values


def _leaves(cache: Cache) -> Iterator[tuple[str, str, Place, Any]]:
    """The call of a module, ``output`` or ``inputs``, the place in it, and what is there."""
    for path, view in cache.items():
        for number, entry in enumerate(view._entries()):
            call = path if len(view) == 1 else f"{path}[{number}]"
            for slot in ("output", "inputs"):
                for keys, value in leaves_of(getattr(entry, slot)):
                    if value is not None:
                        yield call, slot, keys, value


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors takes neither shared memory nor strides.
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return apart
