"""Module paths as a tree: what ``cache.transformer.h[0]`` names, with no model needed."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable

from nntap.errors import UnknownModuleError

CALLED_MODEL = "model"  # what nnsight calls the root, and so do people


def join(parent: str, name: str) -> str:
    """The path of a child; the root may be the empty path."""
    return f"{parent}.{name}" if parent else name


class PathTree:
    """The paths of a model's modules, and other names for some of them.

    Args:
        paths: The modules' paths. Parents that are missing are added.
        root: The root's path: ``""`` stand-alone, ``"model"`` under nnsight.
        aliases: Other paths of a module (a shared module's second place, nnsight's ``rename=``), each with its
            own path.
    """

    def __init__(self, paths: Iterable[str], root: str = "", aliases: dict[str, str] | None = None) -> None:
        self.root = root
        self.aliases = aliases or {}
        self._children: dict[str, list[str]] = {root: []}  # by path, in the order of the model
        for path in paths:
            self._add(path)

    def _add(self, path: str) -> None:
        if path in self._children:
            return
        parent = path.rpartition(".")[0] or self.root
        self._add(parent)
        self._children[parent].append(path)
        self._children[path] = []

    def __contains__(self, path: object) -> bool:
        return path in self._children

    def paths(self) -> list[str]:
        """Every path, parents before children."""
        return list(self._children)

    def children(self, path: str) -> list[str]:
        """The paths right below one, in the order of the model."""
        return self._children.get(path, [])

    def child(self, parent: str | None, name: str) -> str:
        """The path that one name means below ``parent``; ``None`` is the place above the root.

        Raises:
            UnknownModuleError: If there is no such module; names the closest.
        """
        if parent is not None:
            return self._known(join(parent, name))
        if name == self.root:
            return name
        try:
            return self._known(join(self.root, name))
        except UnknownModuleError:
            if name == CALLED_MODEL:
                return self.root
            raise

    def resolve(self, path: str, below: str | None = None) -> str:
        """The module path that a dotted path means: itself, an alias, or one with the root left out or put in.

        Raises:
            UnknownModuleError: If there is no such module; names the closest.
        """
        if path in self._children and below is None:
            return path
        found = below
        try:
            for name in path.split("."):
                found = self.child(found, name)
        except UnknownModuleError:
            raise self.unknown(path) from None
        return self.root if found is None else found

    def indexed(self, path: str, index: int) -> str:
        """The path of the entry of a ModuleList or Sequential; negative counts from the end.

        Raises:
            IndexError: If there is none.
        """
        found = self._entry(path, index)
        if found is None:
            raise IndexError(f"{path!r} has no module {index}; it has {len(self._entries(path))}")
        return found

    def has_index(self, path: str, index: int) -> bool:
        """Whether `indexed` would find one."""
        return self._entry(path, index) is not None

    def _entry(self, path: str, index: int) -> str | None:
        name = join(path, str(index if index >= 0 else len(self._entries(path)) + index))
        return name if name in self._children else self.aliases.get(name)

    def _entries(self, path: str) -> list[str]:
        return [child for child in self.children(path) if child.rpartition(".")[2].isdigit()]

    def other_names(self, paths: Iterable[str]) -> list[str]:
        """The names that aliases give to the paths or to what lies above them."""
        return [
            alias + path[len(own) :]
            for path in paths
            for alias, own in self.aliases.items()
            if path == own or path.startswith(f"{own}.")
        ]

    def spellings(self, path: str, aliases: int = 4) -> list[str]:
        """A module's own path, and those that lead to it through up to so many aliases, of it or of what lies above."""
        if not self.aliases:
            return [path]
        parent, _, name = path.rpartition(".")
        found = [path] if path == self.root else self._below(parent, name, aliases)
        if aliases > 0:
            for alias in self._aliases_of.get(path, []):
                parent, _, name = alias.rpartition(".")
                found += self._below(parent, name, aliases - 1)
        return found

    def _below(self, parent: str, name: str, aliases: int) -> list[str]:
        return [join(spelled, name) for spelled in self.spellings(parent or self.root, aliases)]

    @functools.cached_property
    def _aliases_of(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for alias, own in self.aliases.items():
            found.setdefault(own, []).append(alias)
        return found

    def unknown(self, path: str) -> UnknownModuleError:
        """The error for a path that is not there, with the closest that are."""
        return UnknownModuleError(f"no module is called {path!r}; {closest(path, self.paths())}")

    def _known(self, path: str) -> str:
        if path in self._children:
            return path
        if path in self.aliases:
            return self.aliases[path]
        raise self.unknown(path)


def closest(name: str, names: list[str]) -> str:
    """The closest of the names, as the end of an error message."""
    near = difflib.get_close_matches(name, [known for known in names if known], n=3, cutoff=0.5)
    if near:
        return "the closest are " + ", ".join(map(repr, near))
    shown = [known for known in names if known][:5]
    return "the first are " + ", ".join(map(repr, shown)) if shown else "there are none"
