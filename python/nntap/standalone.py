"""Recording any ``torch.nn.Module``, without nnsight."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Any

import torch

from nntap.cache import Cache
from nntap.hooks import InstalledHooks
from nntap.options import Options
from nntap.records import LiveRecords
from nntap.select import foreign, select
from nntap.tree import PathTree, join


class ModuleModel:
    """A plain module as selections see it: paths are those of ``named_modules()``, the root's is ``""``."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._named: dict[str, torch.nn.Module] = {}
        self._paths: dict[torch.nn.Module, str] = {}
        self._aliases: dict[str, str] = {}
        self._made_tree: PathTree | None = None
        self._walk(module, "")

    def _walk(self, module: torch.nn.Module, path: str) -> None:
        first = self._paths.setdefault(module, path)
        if first != path:
            self._aliases[path] = first
            return
        self._named[path] = module
        for name, child in module._modules.items():
            if child is not None:
                self._walk(child, join(path, name))

    @property
    def tree(self) -> PathTree:
        if self._made_tree is None:
            self._made_tree = self.make_tree()()
        return self._made_tree

    def make_tree(self) -> Callable[[], PathTree]:
        """A function that makes the tree when it is wanted, and does not hold the modules."""
        paths, aliases = list(self._named), self._aliases
        return lambda: PathTree(paths, "", aliases)

    def named_modules(self) -> list[tuple[str, torch.nn.Module]]:
        return list(self._named.items())

    def path_of(self, module: object) -> str | None:
        if not isinstance(module, torch.nn.Module):
            return None
        if module not in self._paths:
            raise foreign(module)
        return self._paths[module]

    def __getitem__(self, path: str) -> torch.nn.Module:
        return self._named[path]


class capture:
    """Records what a model's modules give back while a ``with`` block runs.

    Example:
        >>> with nntap.capture(model, modules="transformer.h.*", dtype="float16") as cache:
        ...     model(**inputs)
        >>> cache["transformer.h.0"].output

    Args:
        model: Any ``torch.nn.Module``.
        modules: What to record: ``None`` (every module), a module of the model, a path of ``named_modules()``
            (``""`` is the model itself), a glob (``*`` within one path component, ``**`` over several), a compiled
            regular expression that must match the whole path, a predicate ``(path, module) -> bool``, or a list of
            these. A ``ModuleList`` stands for its entries.
        device: Where records go: ``"cpu"``, another device, or ``None`` for where each tensor is.
        dtype: What every recorded tensor is cast to, a torch dtype or its name; ``None`` leaves each as it is.
        detach: ``False`` keeps records in the autograd graph (copied by torch, one ``clone`` each).
        include_output: Whether to record what modules give back.
        include_inputs: Whether to record what modules take in, as ``(args, kwargs)``.

    Raises:
        UnknownModuleError: If part of ``modules`` matches nothing; names the closest.
        ValueError: For a device or dtype that is not allowed, or when nothing would be recorded.
        TypeError: For an argument of the wrong type.

    Records are made after the model's other forward hooks. Hooks that are added inside the block count too, from the
    next call of the model on. A capture may be entered again, and captures may be nested and used from several
    threads; each ``with`` gives a cache of its own. If the block raises, the cache keeps what was recorded.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        modules: Any = None,
        *,
        device: Any = "cpu",
        dtype: Any = None,
        detach: bool = True,
        include_output: bool = True,
        include_inputs: bool = False,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model={type(model).__name__} is not allowed: give a torch.nn.Module (under nnsight, call "
                "nntap.install() and use tracer.cache())"
            )
        self._options = Options.check(device, dtype, detach, include_output, include_inputs)
        self._model = ModuleModel(model)
        self._root = model
        self._paths = select(modules, self._model)
        self._open: list[tuple[int, InstalledHooks]] = []  # by the thread that entered

    def __enter__(self) -> Cache:
        recorder = self._options.recorder(len(self._paths))
        modules = [self._model[path] for path in self._paths]
        self._open.append((get_ident(), InstalledHooks(self._root, modules, recorder, self._options.slots)))
        return Cache(LiveRecords(recorder, self._paths), self._model.make_tree())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mine = [index for index, (thread, _) in enumerate(self._open) if thread == get_ident()]
        _, hooks = self._open.pop(mine[-1] if mine else -1)  # a generator may be left by another thread
        hooks.remove()
