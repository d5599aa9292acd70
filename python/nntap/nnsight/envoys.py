"""An nnsight envoy tree, as selections and caches see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch

from nntap.core import INPUTS, OUTPUT, location_code
from nntap.select import foreign, is_list
from nntap.tree import PathTree

NAMES = {OUTPUT: "output", INPUTS: "input"}  # nnsight's
Aliases = Callable[[Any], Iterable[str]]


class EnvoyPaths:
    """The paths of an envoy tree, kept from one trace to the next. Holds neither envoys nor modules."""

    def __init__(self, root: Any, members: list[Any] | None) -> None:
        self.members = members  # weak references to the tree's envoys, which tell whether it is still the same
        self.paths: list[str] = list(dict.fromkeys(path for path, _ in root.modules(names=True)))
        self._codes: dict[tuple[int, ...], dict[str, int]] = {}
        self.tree: PathTree | None = None
        self.lists: dict[str, list[str]] | None = None

    def codes(self, paths: list[str], slots: list[int]) -> dict[str, int]:
        """Recorder codes by location; kept where every module is recorded, which takes as long as the rest."""
        everything = paths is self.paths
        known = self._codes.get(tuple(slots)) if everything else None
        if known is None:
            known = {
                f"{path}.{NAMES[slot]}": location_code(index, slot)
                for index, path in enumerate(paths)
                for slot in slots
            }
            if everything:
                self._codes[tuple(slots)] = known
        return known


_known: WeakKeyDictionary[Any, EnvoyPaths] = WeakKeyDictionary()


def paths_of(root: Any, members: list[Any] | None) -> EnvoyPaths:
    """The tree's paths; those of the last trace where ``members`` shows that nothing has changed since."""
    known = _known.get(root) if members is not None else None
    if known is None or known.members != members:  # weak references are equal while they refer to the same envoy
        known = _known[root] = EnvoyPaths(root, members)
    return known


class EnvoyModel:
    """An envoy tree as selections see it: paths are the envoys', the root's is its own (``"model"``)."""

    def __init__(self, root: Any, members: list[Any] | None, aliases: Aliases) -> None:
        self._root = root
        self._aliases = aliases
        self.known = paths_of(root, members)

    @property
    def tree(self) -> PathTree:
        if self.known.tree is None:
            # Envoys list children before parents; the tree wants the model's own order.
            envoys = sorted(self._envoys(), key=lambda named: named[0].count("."))
            aliases = {
                f"{path}.{alias}": getattr(envoy, alias).path
                for path, envoy in envoys
                for alias in self._aliases(envoy)
            }
            self.known.tree = PathTree([path for path, _ in envoys], self._root.path, aliases)
        return self.known.tree

    def all_paths(self) -> list[str]:
        return self.known.paths

    def named_modules(self) -> list[tuple[str, torch.nn.Module]]:
        return [(path, envoy._module) for path, envoy in self._envoys()]

    def named_envoys(self) -> dict[str, Any]:
        """Every envoy by its path."""
        return dict(self._envoys())

    @property
    def lists(self) -> dict[str, list[str]]:
        if self.known.lists is None:
            named = self.named_modules()
            paths = {module: path for path, module in reversed(named)}
            self.known.lists = {
                path: [paths[entry] for entry in module._modules.values() if entry in paths]
                for path, module in named
                if is_list(module)
            }
        return self.known.lists

    def path_of(self, module: object) -> str | None:
        if isinstance(module, torch.nn.Module):
            return self._path_where(lambda envoy: envoy._module is module, of=module)
        wrapped = getattr(module, "_module", None)
        if isinstance(wrapped, torch.nn.Module):  # an envoy; an edited copy of a model has a root of its own
            return self._path_where(lambda envoy: envoy is module, lambda envoy: envoy._module is wrapped, of=module)
        return None

    def _path_where(self, *fits: Callable[[Any], bool], of: object) -> str:
        """Of the envoy that fits the first test that one fits."""
        for test in fits:
            for path, envoy in self._envoys():
                if test(envoy):
                    return path
        raise foreign(of)

    def _envoys(self) -> list[tuple[str, Any]]:
        return list(self._root.modules(names=True))
