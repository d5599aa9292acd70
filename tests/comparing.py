"""Whether a cache of nntap holds what another cache, or the model itself, says it should."""

from __future__ import annotations

import copy
from typing import Any

import nnsight
import torch

import nntap

# nnsight 0.6 and 0.7 look into lists, tuples and dicts of exactly these types.
ONLY_PLAIN = not nnsight.__version__.startswith("0.8.")


def steps_of(cache: Any, path: str) -> list[tuple[Any, Any]]:
    """(output, inputs) of each step, out of nntap's cache or of any nnsight's."""
    entry = cache[path]
    if isinstance(cache, nntap.Cache):
        return [(step.output, step.inputs) for step in entry]
    if isinstance(entry, list):  # nnsight 0.6 and 0.7
        return [(step.output, step.inputs) for step in entry]
    count = len(entry) if hasattr(type(entry), "__len__") and hasattr(entry, "keys") else 1  # nnsight 0.8
    if count <= 1:
        return [(entry.output, entry.inputs)]
    inputs = entry.inputs if entry.inputs is not None else [None] * count
    outputs = entry.output if entry.output is not None else [None] * count
    return list(zip(outputs, inputs, strict=True))


def as_recorded(value: Any, options: dict[str, Any]) -> Any:
    """What nnsight would have recorded, had it looked into a container that it kept by reference."""
    if isinstance(value, torch.Tensor):
        return (value.detach() if options.get("detach", True) else value).to(dtype=options.get("dtype"))
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = as_recorded(item, options)
        return made
    return type(value)(as_recorded(item, options) for item in value) if isinstance(value, (list, tuple)) else value


def assert_alike(own: Any, ours: Any, options: dict[str, Any]) -> None:
    """Types, order, nesting and values. Of other objects, such as a KV cache, the type: each run makes its own."""
    assert type(own) is type(ours)
    if ONLY_PLAIN and type(own) not in (list, tuple, dict, torch.Tensor):
        own = as_recorded(own, options)
    if isinstance(own, torch.Tensor):
        assert (own.dtype, own.device, own.shape) == (ours.dtype, ours.device, ours.shape)
        assert own.requires_grad == ours.requires_grad
        assert own.clone().stride() == ours.stride()
        assert torch.equal(own, ours)
    elif isinstance(own, dict):
        assert list(own) == list(ours)
        for key in own:
            assert_alike(own[key], ours[key], options)
    elif isinstance(own, (tuple, list)):
        assert len(own) == len(ours)
        for one, other in zip(own, ours, strict=True):
            assert_alike(one, other, options)
    elif isinstance(own, (str, int, float, bool, type(None))):
        assert own == ours


def assert_caches_alike(own: list[Any], ours: list[Any], options: list[dict[str, Any]]) -> None:
    for theirs, mine, asked in zip(own, ours, options, strict=True):
        assert isinstance(mine, nntap.Cache)
        assert not isinstance(theirs, nntap.Cache)
        assert list(theirs.keys()) == list(mine.keys())
        for path in mine:
            assert_alike(steps_of(theirs, path), steps_of(mine, path), asked)
