"""How caches, views and entries look in a terminal or a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from nntap.cache import Cache, CacheView, Entry

MOST_ROWS = 20


def describe(value: Any) -> str:
    """A value in a few words: ``f32 [1, 10, 768]``, ``(f32 [2, 3], None)``, ``{logits: ...}``."""
    try:
        return _described(value)
    except Exception:  # a nested tensor has no shape, and a repr of somebody's class may do anything
        return type(value).__name__


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return "{" + _shortened([f"{key}: {describe(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, (tuple, list)):
        inner = _shortened([describe(item) for item in value])
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    text = repr(value)
    return text if len(text) <= 30 else type(value).__name__


def _shortened(parts: list[str], most: int = 4) -> str:
    more = [f"... {len(parts) - most} more"] if len(parts) > most else []
    return ", ".join(parts[:most] + more)


def show_entry(entry: Entry) -> str:
    shown = [f"{name}={describe(value)}" for name, value in entry._values().items()]
    return f"Entry({', '.join(shown)})"


def show_view(view: CacheView) -> str:
    if not view._is_recorded():
        return _table(f"CacheView({view.path!r}), {len(view.keys())} modules below", view)
    entries = view._entries()
    first = show_entry(entries[0]).removeprefix("Entry(").removesuffix(")")
    times = "" if len(entries) == 1 else f", seen {len(entries)} times, first:"
    return f"CacheView({view.path!r}{times} {first})" if times else f"CacheView({view.path!r}, {first})"


def show_cache(cache: Cache) -> str:
    stats = cache.stats
    slow = sum(stats.slow.values())  # whose bytes are not counted
    size = f"{stats.records + slow} tensors" if slow else _bytes(stats.bytes_recorded)
    return _table(f"Cache: {len(cache)} modules, {size} recorded", cache)


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _table(title: str, node: Cache | CacheView) -> str:
    keys = node.keys()
    rows = [(key or "(the model)", _row(node._cache, key)) for key in keys[:MOST_ROWS]]
    width = max((len(key) for key, _ in rows), default=0)
    lines = [title, *(f"  {key:<{width}}  {text}" for key, text in rows)]
    if len(keys) > MOST_ROWS:
        lines.append(f"  ... and {len(keys) - MOST_ROWS} more: see .keys()")
    return "\n".join(lines)


def _row(cache: Cache, key: str) -> str:
    view = cache[key]
    entries = view._entries()
    entry = entries[0]
    text = describe(entry.output if entry.output is not None else entry.inputs)
    return text if len(entries) == 1 else f"{text}  x{len(entries)}"
