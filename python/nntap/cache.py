"""What a recording gives back: values by module path, read when asked for."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from nntap.errors import UnknownModuleError, brief
from nntap.export import save_safetensors
from nntap.records import Records, StoredRecords
from nntap.show import show_cache, show_entry, show_view
from nntap.stats import Stats
from nntap.tree import PathTree


class Entry:
    """One call of a module.

    Attributes:
        output: What the module gave back, or None where outputs are not recorded, or the call never returned: it
            raised, or gradient checkpointing stopped it, and its inputs were recorded. Containers keep their types;
            each tensor has the shape that it had, on the device and in the dtype that recording was asked for.
        inputs: ``(args, kwargs)`` it was called with, likewise, or None where inputs are not recorded.
        input: The first positional argument, else the first keyword argument, else None.
    """

    def __init__(self, records: Records, path: str, visit: int) -> None:
        self._records = records
        self._path = path
        self._visit = visit

    @property
    def output(self) -> Any:
        return self._records.output(self._path, self._visit)

    @property
    def inputs(self) -> Any:
        return self._records.inputs(self._path, self._visit)

    @property
    def input(self) -> Any:
        if self.inputs is None:
            return None
        args, kwargs = self.inputs
        return next(iter([*args, *kwargs.values()]), None)

    def _values(self) -> dict[str, Any]:
        """What there is of `output` and `inputs`, by name."""
        found = {name: value for name in ("output", "inputs") if (value := getattr(self, name)) is not None}
        return found or {"output": None}  # inputs are never None, so it is what the module gave back

    def __getstate__(self) -> dict[str, Any]:
        stored = StoredRecords({self._path: [(self.output, self.inputs)]}, Stats())
        return {"_records": stored, "_path": self._path, "_visit": 0}

    def __repr__(self) -> str:
        return show_entry(self)


class _Node:
    """A place in the model's tree: navigation, and a mapping over the recorded modules at and below it."""

    _path: str | None  # None: above the root

    @property
    def _cache(self) -> Cache:
        raise NotImplementedError

    def keys(self) -> list[str]:
        """The recorded module paths at and below this place, in the order the model ran them."""
        return [key for key in self._cache._records.order() if self._covers(key)]

    def values(self) -> list[CacheView]:
        """The views of `keys`."""
        return [CacheView(self._cache, key) for key in self.keys()]

    def items(self) -> list[tuple[str, CacheView]]:
        """Pairs of `keys` and `values`."""
        return list(zip(self.keys(), self.values(), strict=True))

    def get(self, key: str, default: Any = None) -> Any:
        """The recorded module's view, or ``default``: ``key`` is a path, as in ``cache[key]``."""
        if key not in self:
            return default
        return self[key]

    def _covers(self, key: str) -> bool:
        return self._path in (None, "") or key == self._path or key.startswith(f"{self._path}.")

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            return self._resolve(key) in self._cache._records
        except UnknownModuleError:
            return False

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            raise TypeError(f"{brief(key)} is no module path: give a string such as {self._example()!r}")
        return CacheView(self._cache, self._resolve(key))

    def _resolve(self, key: str) -> str:
        if key in self._cache._records and self._covers(key):
            return key
        tree = self._cache._tree
        try:
            return tree.resolve(key, self._path)
        except UnknownModuleError:
            if "." not in key:
                raise
            with suppress(UnknownModuleError):
                return tree.resolve(key)  # a dotted key may start at the root, as in nnsight
            raise

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            path = self._cache._tree.child(self._path, name)
        except UnknownModuleError as error:
            hint = "; what the module gave back is its .output" if self._path in self._cache._records else ""
            raise AttributeError(f"{error}{hint}") from None
        return CacheView(self._cache, path, walked=True)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name!r} cannot be set: a cache is read-only")
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys())

    def __bool__(self) -> bool:
        return bool(self.keys())

    def __dir__(self) -> list[str]:
        below = self._cache._tree.children(self._path or self._cache._tree.root)
        return sorted({*object.__dir__(self), *(path.rpartition(".")[2] for path in below)})

    def _example(self) -> str:
        return next(iter(self._cache._records.order()), "transformer.h.0")


class Cache(_Node):
    """Recorded activations, keyed by module path in the order the model ran them: in which modules gave back, or, where
    inputs are recorded too, in which they were called. The visits of a module that calls itself have the same order.

    ``cache["transformer.h.0"].output``, ``cache.transformer.h[0].output`` and ``cache.model.transformer.h[0].output``
    read the same tensor. Records are snapshots: nothing done in place to the model's tensors changes them. Records of
    a tensor that several modules handed on unchanged are one tensor. A cache can be read while it is recorded, copied,
    pickled and given to ``torch.save``; what is pickled are plain tensors and the paths. ``copy.deepcopy`` takes no
    records of ``detach=False``: torch copies no tensor in a graph so.
    """

    def __init__(self, records: Records, make_tree: Callable[[], PathTree]) -> None:
        self._records = records
        self._make_tree: Callable[[], PathTree] | None = make_tree
        self._made_tree: PathTree | None = None
        self._path = None

    @property
    def _cache(self) -> Cache:
        return self  # no attribute: a cycle would keep the records until the garbage collector runs

    @property
    def _tree(self) -> PathTree:
        if self._made_tree is None:
            assert self._make_tree is not None
            self._made_tree = self._make_tree()
            self._make_tree = None  # drops what it holds of the model
        return self._made_tree

    def keys(self, alias: bool = False) -> list[str]:
        """The recorded module paths, in the order the model ran them; with ``alias=True`` the other names that
        nnsight's ``rename=``, or a second place in the model, give them."""
        return self._tree.other_names(super().keys()) if alias else super().keys()

    @property
    def stats(self) -> Stats:
        """What recording came to so far."""
        return self._records.stats()

    def to_dict(self) -> dict[str, Any]:
        """Plain Python: by path ``{"output": ..., "inputs": ...}``, or a list of these for a module seen several
        times; without the key of what is not recorded."""
        return {path: view._to_plain() for path, view in self.items()}

    def save(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Writes every recorded tensor to a safetensors file.

        A tensor's name is its place: ``transformer.h.0.output``, ``transformer.h.0.output.1`` inside a tuple (or a set,
        in the order it is iterated), ``output.logits`` for a key or a field, ``transformer.h.0[2].output`` for the
        third call. Values that are no tensors are listed, as text, in the file's metadata. Without a path, as in
        nnsight's ``tracer.cache().save()``, it returns the cache itself.

        Raises:
            ImportError: If safetensors is not installed.
            ValueError: If two values would have the same name, as in ``{0: a, "0": b}``, or the file cannot hold a
                tensor: one that is sparse, quantized or nested, has no memory (meta), or is of complex32 or complex128.
                Nothing is written then.
        """
        if path is None:
            return self
        save_safetensors(self, path)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"records": StoredRecords.of(self._records), "tree": self._tree}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tree = state["tree"]
        self.__init__(state["records"], lambda: tree)  # type: ignore[misc]

    def __repr__(self) -> str:
        return show_cache(self)


class CacheView(_Node):
    """One module's records, or a place in the tree with records below it.

    A module seen once: ``.output``, ``.inputs`` as ``(args, kwargs)``, ``.input``. Seen n times: ``len(view) == n``,
    ``for step in view``, ``view[i].output``, and ``view.output`` is the list of n. A place that was not recorded
    itself is a mapping over the recorded modules below it. Reading values of a module that was not recorded raises
    `UnknownModuleError`, which says whether it was not selected or never called.
    """

    def __init__(self, cache: Cache, path: str, walked: bool = False) -> None:
        self._root = cache
        self._path = path
        self._walked = walked  # reached by attributes: an integer then means a child where there is one

    @property
    def _cache(self) -> Cache:
        return self._root

    @property
    def path(self) -> str:
        """The module's path."""
        assert self._path is not None
        return self._path

    def _is_recorded(self) -> bool:
        return self._path in self._cache._records

    def _entries(self) -> list[Entry]:
        if not self._is_recorded():
            self._raise_not_recorded()
        records = self._cache._records
        return [Entry(records, self.path, visit) for visit in range(records.count(self.path))]

    def _raise_not_recorded(self) -> NoReturn:
        below = self.keys()
        if below:
            raise UnknownModuleError(f"{self._path!r} was not recorded itself, but {len(below)} modules below it were")
        if self._cache._records.selected(self.path):
            raise UnknownModuleError(f"{self._path!r} was selected, but the model never called it")
        raise UnknownModuleError(
            f"{self._path!r} was not recorded; the cache has {len(self._cache)} modules: see cache.keys()"
        )

    def _values(self, name: str) -> Any:
        if not self._is_recorded() and name in ("output", "input"):
            child = f"{self._path}.{name}"  # some models have a module of that name
            if child in self._cache._tree:
                return CacheView(self._cache, child, walked=True)
        values = [getattr(entry, name) for entry in self._entries()]
        return values[0] if len(values) == 1 else values

    @property
    def output(self) -> Any:
        """What the module gave back; for a module seen n times, the list of n."""
        return self._values("output")

    @property
    def inputs(self) -> Any:
        """``(args, kwargs)`` the module was called with; for a module seen n times, the list of n."""
        return self._values("inputs")

    @property
    def input(self) -> Any:
        """The first argument; for a module seen n times, the list of n."""
        return self._values("input")

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        if isinstance(key, slice):
            return self._sliced(key)
        try:
            index = operator.index(key)
        except TypeError:
            raise TypeError(
                f"{brief(key)} is no index: give a whole number, a slice of a recorded module's visits, or a module "
                "path"
            ) from None
        child = self._cache._tree.has_index(self.path, index) and (self._walked or not self._is_recorded())
        if child:
            return CacheView(self._cache, self._cache._tree.indexed(self.path, index), walked=True)
        if not self._is_recorded():
            self._cache._tree.indexed(self.path, index)  # raises, naming how many there are
        entries = self._entries()
        if not -len(entries) <= index < len(entries):
            raise IndexError(f"{self._path!r} has no visit {index}; it was called {len(entries)} times")
        return entries[index]

    def _sliced(self, key: slice) -> list[Entry]:
        if not self._is_recorded():
            raise TypeError(
                f"{self._path!r} was not recorded itself, and a slice is of a recorded module's visits: index it with "
                "whole numbers"
            )
        return self._entries()[key]

    def __len__(self) -> int:
        return len(self._entries()) if self._is_recorded() else len(self.keys())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries() if self._is_recorded() else self.keys())

    def _to_plain(self) -> Any:
        plain = [entry._values() for entry in self._entries()]
        return plain[0] if len(plain) == 1 else plain

    def __repr__(self) -> str:
        return show_view(self)
