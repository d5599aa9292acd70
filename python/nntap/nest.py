"""What a module gives back: containers of many kinds with tensors in them, rebuilt and walked."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

Walk = Callable[[Any], Any]
Place = tuple[Any, ...]  # the key, index or field at each depth of a nest


def rebuild(value: Any, walk: Walk) -> Any:
    """A container of the same type whose items went through ``walk``; any other object as it is.

    Plain tuples, lists and dicts never come here. A container that cannot be rebuilt raises what its own
    constructor raises.
    """
    if isinstance(value, tuple):
        return _rebuild_tuple(value, [walk(item) for item in value])
    if isinstance(value, list):
        made_list: list[Any] = copy.copy(value)
        made_list[:] = [walk(item) for item in value]
        return made_list
    if isinstance(value, (set, frozenset)):
        return type(value)(walk(item) for item in value)
    if isinstance(value, OrderedDict) and dataclasses.is_dataclass(value):
        return _rebuild_dataclass_dict(value, walk)
    if isinstance(value, dict):  # OrderedDict, defaultdict
        mapping = _copy_of_dict(value)
        for key, item in value.items():
            mapping[key] = walk(item)
        return mapping
    if isinstance(value, slice):
        return slice(walk(value.start), walk(value.stop), walk(value.step))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        made: Any = copy.copy(value)
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                object.__setattr__(made, field.name, walk(getattr(value, field.name)))  # also when frozen
        return made
    return value


def _rebuild_tuple(value: tuple[Any, ...], items: list[Any]) -> Any:
    kind = type(value)
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value  # torch.Size, for one, which takes nothing but integers
    if hasattr(kind, "n_sequence_fields"):  # torch.return_types, whose items have names
        return kind(items)
    # A namedtuple's own constructor may look into its items (PackedSequence), which are no tensors while recorded.
    made = tuple.__new__(kind, items)
    if hasattr(value, "__dict__"):
        vars(made).update(vars(value))
    return made


def _rebuild_dataclass_dict(value: Any, walk: Walk) -> Any:
    """transformers' ModelOutput and its like, whose constructors check every field: 100 us without them."""
    made = OrderedDict.__new__(type(value))
    for key, item in value.items():
        made[key] = walk(item)  # its own: it makes the attribute as well
    attributes = vars(made)
    for name, item in vars(value).items():
        if name not in attributes:
            attributes[name] = walk(item)
    return made


def _copy_of_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    made = value.copy()  # a subclass that does not define it gets a plain dict
    return made if type(made) is type(value) else copy.copy(value)


def leaves_of(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in a nest that is no container, tensors and others, with its place."""
    parts = _parts_of(value)
    if parts is None:
        yield place, value
        return
    for key, item in parts:
        yield from leaves_of(item, (*place, key))


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a nest, in order."""
    return (leaf for _, leaf in leaves_of(value) if isinstance(leaf, torch.Tensor))


def _parts_of(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """What a container holds, of every kind that is recorded as one; None for anything else."""
    if isinstance(value, (tuple, list, set, frozenset)):
        return enumerate(value)
    if isinstance(value, OrderedDict) and dataclasses.is_dataclass(value):
        others = {name: item for name, item in vars(value).items() if name not in value}
        return [*value.items(), *others.items()]
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, slice):
        return [(name, getattr(value, name)) for name in ("start", "stop", "step")]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return None
