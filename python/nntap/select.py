"""Which modules to record: what ``modules=`` means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch

from nntap.errors import UnknownModuleError, brief
from nntap.tree import PathTree, closest, join

TAKES = (
    "modules= takes None (every module), a module of the model, a path, a glob ('*' within one component, '**' over "
    "several), a compiled regular expression, a predicate (path, module) -> bool, or a list of these"
)


class Model(Protocol):
    """What a selection must know of a model."""

    @property
    def tree(self) -> PathTree:
        """Its module paths."""

    def all_paths(self) -> list[str]:
        """Every module once."""

    def named_modules(self) -> list[tuple[str, torch.nn.Module]]:
        """Every module once, by its path."""

    @property
    def lists(self) -> dict[str, list[str]]:
        """The paths of the entries of each list of modules (see `is_list`), by its own path."""

    def path_of(self, module: object) -> str | None:
        """The path of a module object, or of what stands for one; None if it is neither.

        Raises:
            UnknownModuleError: If it is a module of another model; see `foreign`.
        """


def select(modules: Any, model: Model) -> list[str]:
    """The selected paths, each once.

    Args:
        modules: What a user gave; see `TAKES`.
        model: The model to select from.

    Raises:
        UnknownModuleError: If some part of the selection matches nothing.
        ValueError: If the selection is empty.
        TypeError: If some part is of a type that is not taken.
    """
    if modules is None:
        return model.all_paths()
    paths = list(dict.fromkeys(_expand(modules, model)))
    if not paths:
        raise ValueError(f"modules={brief(modules)} would record nothing: {TAKES}")
    return paths


def _expand(item: Any, model: Model) -> list[str]:
    if isinstance(item, str):
        return [entry for path in _by_name(item, model) for entry in _called(path, model.lists)]
    if isinstance(item, re.Pattern) and isinstance(item.pattern, str):
        words = _EXPRESSION_SIGNS.sub("", item.pattern)
        paths = _matching(f"the expression {item.pattern!r}", words, lambda path, _: bool(item.fullmatch(path)), model)
        return [entry for path in paths for entry in _called(path, model.lists)]
    if isinstance(item, torch.nn.Module):
        return _by_module(item, model)
    path = model.path_of(item)
    if path is not None:
        return _called(path, model.lists)
    if isinstance(item, type):
        raise TypeError(
            f"modules={item.__name__} is a class: for the modules of that class give "
            f"lambda path, module: isinstance(module, {item.__name__})"
        )
    if isinstance(item, Iterable) and not isinstance(item, (bytes, bytearray, torch.Tensor)):
        return [path for part in item for path in _expand(part, model)]
    if callable(item):
        return _by_predicate(item, model)
    shown = type(item).__name__ if isinstance(item, torch.Tensor) else repr(item)
    raise TypeError(f"modules={shown} is not allowed: {TAKES}")


def is_list(module: object) -> bool:
    """Whether it is a ModuleList or a ModuleDict that is never called, so that whoever names it means its entries."""
    return isinstance(module, _LISTS) and type(module).forward is torch.nn.Module.forward


def foreign(module: object) -> UnknownModuleError:
    """The error for a module of another model."""
    module = getattr(module, "_module", module)  # of an envoy
    text = str(module)
    shown = type(module).__name__ if "\n" in text else text
    return UnknownModuleError(f"{shown} is no module of this model, but of another or of none; {TAKES}")


def _called(path: str, lists: dict[str, list[str]]) -> list[str]:
    """The path; of a list, those of its entries."""
    if path not in lists:
        return [path]
    others = {other: entries for other, entries in lists.items() if other != path}  # a list may hold itself
    return [called for entry in lists[path] for called in _called(entry, others)]


def _by_module(module: torch.nn.Module, model: Model) -> list[str]:
    try:
        path = model.path_of(module)
    except UnknownModuleError:
        if not is_list(module):
            raise
        # A slice of a ModuleList is a new one, of the model's own modules.
        entries = [entry for entry in module._modules.values() if entry is not None]
        return [path for entry in entries for path in _by_module(entry, model)]
    assert path is not None
    return _called(path, model.lists)


def _by_predicate(wanted: Callable[[str, torch.nn.Module], bool], model: Model) -> list[str]:
    # It is asked about each entry, and may refuse some: a list that it takes does not bring in the others.
    lists = model.lists
    _check_predicate(wanted)
    return _matching(
        f"the predicate {wanted!r}", "", lambda path, module: path not in lists and wanted(path, module), model
    )


def _check_predicate(predicate: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(predicate)
    except (TypeError, ValueError):  # some of C's have none
        return
    try:
        signature.bind("path", "module")
    except TypeError as error:
        raise TypeError(f"the predicate {predicate!r} does not take (path, module): {error}") from None


def _by_name(name: str, model: Model) -> list[str]:
    try:
        return [model.tree.resolve(name)]
    except UnknownModuleError:
        if not set(name) & set("*?["):
            raise
    return _by_glob(name, model)


def _by_glob(glob: str, model: Model) -> list[str]:
    pattern = re.compile(glob_to_regex(glob))
    what = f"the glob {glob!r}"
    try:
        words = _GLOB_SIGNS.sub("", glob)
        return _matching(what, words, lambda path, _: any(map(pattern.fullmatch, _spellings(path, model.tree))), model)
    except UnknownModuleError:
        meant = _meant(glob, model)
        if meant is None:
            raise
        raise UnknownModuleError(f"{what} matches no module; {meant!r} would match") from None


def _meant(glob: str, model: Model) -> str | None:
    """A glob that matches something, and differs by an index in brackets or by what stands before it."""
    root = f"{model.tree.root}." if model.tree.root else ""
    paths = [path.removeprefix(root) for path in model.all_paths()]
    for guess in (re.sub(r"\[(\d+)]", r".\1", glob), glob):
        ending = re.compile(rf"(?:(.*)\.)?{glob_to_regex(guess)}")
        starts = {found[1] or "" for found in map(ending.fullmatch, paths) if found}
        if starts:
            return join(starts.pop() if len(starts) == 1 else "**", guess)
    return None


def _spellings(path: str, tree: PathTree) -> list[str]:
    names = tree.spellings(path)
    root = f"{tree.root}." if tree.root else ""
    return names + [name.removeprefix(root) for name in names]


def _matching(what: str, words: str, wanted: Callable[[str, torch.nn.Module], bool], model: Model) -> list[str]:
    """The paths of the modules that are wanted. Where there are none it raises, naming those most like `words`."""
    named = model.named_modules()
    paths = [path for path, module in named if wanted(path, module)]
    if not paths:
        raise UnknownModuleError(f"{what} matches no module; {closest(words, [path for path, _ in named])}")
    return paths


def glob_to_regex(glob: str) -> str:
    """A regular expression for a glob over dotted paths: ``*`` and ``?`` stay within one component, ``**`` does not.

    ``[...]`` is one character of a set, ``[!...]`` one that is not.
    """
    parts = re.split(r"(\*\*|\*|\?|\[!?[^]]+\])", glob)
    return "".join(_glob_part(part) for part in parts)


def _glob_part(part: str) -> str:
    if part in _WILD:
        return _WILD[part]
    if part.startswith("[") and part.endswith("]"):
        return "[^" + part[2:] if part.startswith("[!") else part
    return re.escape(part)


_LISTS = (torch.nn.ModuleList, torch.nn.ModuleDict)
_WILD = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
# What of a pattern is no part of a name, for the names that are most like it.
_GLOB_SIGNS = re.compile(r"[*?]|\[!?[^]]+\]")
_EXPRESSION_SIGNS = re.compile(r"\\[a-zA-Z]|[\\^$|?*+(){}\[\]]")
