"""The containers a module may return that the core does not walk itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

Walk = Callable[[Any], Any]


def rebuild(value: Any, walk: Walk) -> Any:
    """A container of the same type whose items went through ``walk``; any other object as it is.

    Plain tuples, lists and dicts never come here. A container that cannot be rebuilt raises what its own
    constructor raises.
    """
    if isinstance(value, tuple):
        items = [walk(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, (list, set, frozenset)):
        return type(value)(walk(item) for item in value)
    if isinstance(value, dict):  # OrderedDict, defaultdict, transformers' ModelOutput
        mapping = value.copy()
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
