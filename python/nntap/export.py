"""Writing a cache to a safetensors file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import torch

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
    tensors: dict[str, torch.Tensor] = {}
    others: dict[str, str] = {}
    for key, view in cache.items():
        for number, entry in enumerate(view._entries()):
            place = key if len(view) == 1 else f"{key}[{number}]"
            _flatten(f"{place}.output".lstrip("."), entry.output, tensors, others)
            _flatten(f"{place}.inputs".lstrip("."), entry.inputs, tensors, others)
    metadata = {"format": "pt", "nntap.others": json.dumps(others)}
    save_file(_apart(tensors), os.fspath(path), metadata=metadata)


def _flatten(name: str, value: Any, tensors: dict[str, torch.Tensor], others: dict[str, str]) -> None:
    if isinstance(value, torch.Tensor):
        tensors[name] = value
    elif isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{name}.{key}", item, tensors, others)
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            _flatten(f"{name}.{index}", item, tensors, others)
    elif value is not None:
        others[name] = repr(value)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors takes neither shared memory nor strides.
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor.contiguous()
    return apart
