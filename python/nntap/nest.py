"""The containers a module may return that the core does not walk itself."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from enum import Enum
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, NamedTuple

import torch
from torch import nn

Walk = Callable[[Any], Any]
Place = tuple[Any, ...]  # the key, index or field at each depth of a nest
Memo = dict[int, tuple[Any, Any]]  # by its id, a container, kept alive so that the id stays its own, and its new one

_running: ContextVar[tuple[Walk, Memo] | None] = ContextVar("nntap.nest", default=None)


def rebuild(value: Any, walk: Walk) -> Any:
    """A container of the same type whose items and attributes went through ``walk``; any other object as it is.

    Plain tuples, lists and dicts never come here. A container's own code does not run: its constructor or
    ``__setitem__`` may refuse what stands for a tensor in a record, and its ``copy`` may give back the model's own
    object. What cannot be built without that code is kept by reference, as an object is that is no container.
    Where a container of these types occurs twice in this one, or in itself, so does the new one.
    """
    kind: Any = type(value)
    try:
        shape = _shape(kind)
    except RecursionError:
        raise
    except Exception:  # a metaclass may be the user's code too
        return value
    if shape is None:
        return value
    outer = _running.get()
    if outer is not None and outer[0] == walk:  # a container around this one is being rebuilt
        known = outer[1].get(id(value))
        return _rebuild(value, shape, walk, outer[1]) if known is None else known[1]
    memo: Memo = {}
    token = _running.set((walk, memo))
    try:
        return _rebuild(value, shape, walk, memo)
    finally:
        _running.reset(token)


class _Shape(NamedTuple):
    """What the instances of a class consist of, and what reaches it without the code of the class."""

    base: Any
    attributes: GetSetDescriptorType | None
    slots: tuple[MemberDescriptorType, ...]


_MADE_OF_ITEMS = (tuple, frozenset, set, slice)
_DICTS = (OrderedDict, defaultdict, dict)
_FACTORY = vars(defaultdict)["default_factory"]
_KEPT = (Enum, nn.Module)  # there is one of each, whatever it holds


@functools.lru_cache(maxsize=256)
def _shape(kind: type) -> _Shape | None:
    """None for what is kept by reference."""
    base = next(base for base in (*_MADE_OF_ITEMS, list, *_DICTS, object) if issubclass(kind, base))
    if issubclass(kind, _KEPT) or (base is object and not dataclasses.is_dataclass(kind)):
        return None
    attributes = next((vars(owner)["__dict__"] for owner in kind.__mro__ if "__dict__" in vars(owner)), None)
    if not isinstance(attributes, (GetSetDescriptorType, type(None))):
        return None  # a property hides them
    owners = [owner for owner in kind.__mro__ if "__slots__" in vars(owner)]
    slots = [slot for owner in owners for slot in vars(owner).values() if isinstance(slot, MemberDescriptorType)]
    return _Shape(base, attributes, tuple(slots))


def _rebuild(value: Any, shape: _Shape, walk: Walk, memo: Memo) -> Any:
    base = shape.base
    made = _made_of_items(value, shape, walk, memo) if base in _MADE_OF_ITEMS else _made_empty(value, base)
    if made is value:
        return value
    memo[id(value)] = value, made  # now, because what follows may lead back to it
    attributes, own = _attributes(value, made, shape)
    if base is list:
        list.extend(made, walk(tuple(list.__iter__(value))))
    elif base in _DICTS:
        for key, item in tuple(base.items(value)):
            new = walk(item)
            base.__setitem__(made, key, new)
            if key in attributes and attributes[key] is item:  # a ModelOutput holds each item as an attribute too
                own[key] = new
    for name, item in attributes.items():
        if name not in own:
            own[name] = walk(item)
    for slot in shape.slots:
        _set_slot(slot, made, value, walk)
    return made


def _made_of_items(value: Any, shape: _Shape, walk: Walk, memo: Memo) -> Any:
    """The value itself where nothing changed, or where a new one cannot be made."""
    kind, base = type(value), shape.base
    if base is not set:  # a set's items lead back to it only through what is in the memo by then
        memo[id(value)] = value, value  # theirs may, while there is no other yet
    items = (value.start, value.stop, value.step) if base is slice else tuple(base.__iter__(value))
    walked = walk(items)
    more = shape.slots or (shape.attributes is not None and shape.attributes.__get__(value))
    if base is not set and not more and all(map(operator.is_, walked, items)):
        return value  # torch.Size, for one, which takes nothing but integers
    try:
        if base is slice:
            return slice(*walked)
        if hasattr(kind, "n_sequence_fields"):  # torch.return_types, made by their own constructor, which is in C
            return kind(walked)
        made = base.__new__(kind, walked)
        if base is set:
            set.update(made, walked)
        return made
    except Exception:  # the type is made in C, or what was hashable is no longer
        return value


def _made_empty(value: Any, base: Any) -> Any:
    """The value itself where a new one cannot be made."""
    try:
        made = base.__new__(type(value))
    except TypeError:  # the type is made in C
        return value
    if base is defaultdict:
        _FACTORY.__set__(made, _FACTORY.__get__(value))
    return made


def _attributes(value: Any, made: Any, shape: _Shape) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the value, and where those of the new one go."""
    if shape.attributes is None:
        return {}, {}
    attributes = shape.attributes.__get__(value)
    if attributes is value:  # self.__dict__ = self
        shape.attributes.__set__(made, made)
        return {}, {}
    return (dict.copy(attributes), shape.attributes.__get__(made)) if attributes else ({}, {})


def _set_slot(slot: MemberDescriptorType, made: Any, value: Any, walk: Walk) -> None:
    try:
        item = slot.__get__(value)
    except AttributeError:  # never set
        return
    slot.__set__(made, walk(item))


# ---- looking into a nest ----


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a nest, in order."""
    return (leaf for _, leaf in leaves_of(value) if isinstance(leaf, torch.Tensor))


def leaves_of(value: Any, place: Place = (), around: tuple[int, ...] = ()) -> Iterator[tuple[Place, Any]]:
    """Everything in a nest that is no container, tensors and others, with its place.

    ``around``: the ids of the containers that the value lies in, which are not entered again.
    """
    kind: Any = type(value)
    shape = _shape(kind)
    if shape is None:
        yield place, value
    elif id(value) not in around:
        for key, item in _parts_of(value, shape):
            yield from leaves_of(item, (*place, key), (*around, id(value)))


def _parts_of(value: Any, shape: _Shape) -> Iterator[tuple[Any, Any]]:
    """What a container holds: its items, and what attributes it has besides."""
    items: dict[Any, Any] = {}
    if shape.base in _DICTS:
        items = dict(shape.base.items(value))
    elif shape.base is slice:
        items = {"start": value.start, "stop": value.stop, "step": value.step}
    elif shape.base is not object:
        items = dict(enumerate(shape.base.__iter__(value)))
    yield from items.items()
    attributes = shape.attributes.__get__(value) if shape.attributes is not None else {}
    slots = {slot.__name__: getattr(value, slot.__name__) for slot in shape.slots if hasattr(value, slot.__name__)}
    for name, item in {**attributes, **slots}.items():
        if items.get(name, _NOTHING) is not item:
            yield name, item


_NOTHING = object()
