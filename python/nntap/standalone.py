"""Recording any ``torch.nn.Module``, without nnsight."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from threading import get_ident
from types import TracebackType
from typing import Any

import torch

from nntap.cache import Cache
from nntap.core import module_paths
from nntap.hooks import InstalledHooks, fused_layers
from nntap.options import Options
from nntap.records import LiveRecords
from nntap.select import foreign, is_list, select
from nntap.tree import PathTree


class ModuleModel:
    """A plain module as selections see it: paths are those of ``named_modules()``, the root's is ``""``."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._paths: dict[torch.nn.Module, str]
        self._aliases: dict[str, str]
        self._paths, self._aliases = module_paths(module)
        self._made_tree: PathTree | None = None

    @property
    def tree(self) -> PathTree:
        if self._made_tree is None:
            self._made_tree = self.make_tree()()
        return self._made_tree

    def make_tree(self) -> Callable[[], PathTree]:
        """A function that makes the tree when it is wanted, and does not hold the modules."""
        paths, aliases = list(self._paths.values()), self._aliases
        return lambda: PathTree(paths, "", aliases)

    def all_paths(self) -> list[str]:
        return list(self._paths.values())

    def all_modules(self) -> Iterable[torch.nn.Module]:
        return self._paths

    def named_modules(self) -> list[tuple[str, torch.nn.Module]]:
        return [(path, module) for module, path in self._paths.items()]

    @functools.cached_property
    def lists(self) -> dict[str, list[str]]:
        return {
            path: [self._paths[entry] for entry in module._modules.values() if entry is not None]
            for module, path in self._paths.items()
            if is_list(module)
        }

    def path_of(self, module: object) -> str | None:
        if not isinstance(module, torch.nn.Module):
            return None
        if module not in self._paths:
            raise foreign(module)
        return self._paths[module]

    def modules_at(self, paths: list[str]) -> list[torch.nn.Module]:
        if paths == self.all_paths():
            return list(self._paths)
        named = dict(zip(self._paths.values(), self._paths, strict=True))
        return [named[path] for path in paths]


class capture:
    """Records what a model's modules give back while a ``with`` block runs, which is given the `Cache`.

    Example:
        >>> with nntap.capture(model, modules="transformer.h.*", dtype="float16") as cache:
        ...     model(**inputs)
        >>> cache["transformer.h.0"].output

    Args:
        model: Any ``torch.nn.Module``.
        modules: What to record: ``None`` (every module), a module of the model, a path of ``named_modules()``
            (``""`` is the model itself), a glob (``*`` within one path component, ``**`` over several), a compiled
            regular expression that must match the whole path, a predicate ``(path, module) -> bool``, or a list of
            these. A ``ModuleList`` stands for its entries, and a predicate is asked about these alone.
        device: Where records go: ``"cpu"``, another device, or ``None`` for where each tensor is.
        dtype: What every recorded tensor is cast to, a torch dtype or its name; ``None`` leaves each as it is.
        detach: ``False`` keeps records in the autograd graph (copied by torch, one ``clone`` each).
        include_output: Whether to record what modules give back.
        include_inputs: Whether to record what modules take in, as ``(args, kwargs)``.

    Raises:
        UnsupportedTorchError: When ``nntap.capture`` is first used, if the installed torch cannot serve the core.
        UnknownModuleError: If part of ``modules`` matches nothing; names the closest.
        ValueError: For a device or dtype that is not allowed, when nothing would be recorded, for a DataParallel
            model over several devices, or for the inputs of a ScriptModule.
        TypeError: For an argument of the wrong type.
        HostMemoryError: Inside the block, where the model is called: a record found no memory (`nntap.set_limits`).
        CudaError: Inside the block, likewise: the driver refused something, the stream is being captured into a CUDA
            graph, or this is a forked process.

    What a module gives back is recorded after all its forward hooks, and what it takes in after its forward pre-hooks
    (those that are added inside the block count from the next call of the model on). A capture may be entered again,
    and captures may be nested and used from several threads; each ``with`` gives a cache of its own. If the block
    raises, the cache keeps what was recorded. All that ``torch.compile`` compiled, in every thread of the process, runs
    eagerly while a block is open.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        modules: Any = None,  # no narrower: to a type checker a module's attribute may be a tensor
        *,
        device: str | int | torch.device | None = "cpu",
        dtype: str | torch.dtype | None = None,
        detach: bool = True,
        include_output: bool = True,
        include_inputs: bool = False,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model={type(model).__name__} is not allowed: give a torch.nn.Module (under nnsight, call "
                "nntap.install() and use tracer.cache())"
            )
        if isinstance(model, torch.nn.DataParallel) and len(model.device_ids) > 1:
            # Its replicas share what stands for a module's call, and would all run on the first device.
            raise ValueError(
                f"a DataParallel model over devices {model.device_ids} is not allowed: capture model.module on one "
                "device, or use DistributedDataParallel"
            )
        self._options = Options.check(device, dtype, detach, include_output, include_inputs)
        if include_inputs and isinstance(model, torch.jit.ScriptModule):
            raise ValueError(
                "include_inputs=True is not allowed for a ScriptModule: torch gives it no forward pre-hooks"
            )
        self._model = ModuleModel(model)
        self._root = model
        self._paths = select(modules, self._model)
        self._modules = self._model.modules_at(self._paths)
        self._fused = fused_layers(self._model.all_modules(), self._modules)
        self._open: list[tuple[int, InstalledHooks]] = []  # by the thread that entered

    def __enter__(self) -> Cache:
        recorder = self._options.recorder(len(self._paths))
        hooks = InstalledHooks(self._root, self._modules, recorder, self._options.slots, self._fused)
        self._open.append((get_ident(), hooks))
        return Cache(LiveRecords(recorder, self._paths), self._model.make_tree())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._open:
            raise RuntimeError("this capture has not been entered: use it as `with nntap.capture(...) as cache:`")
        mine = [index for index, (thread, _) in enumerate(self._open) if thread == get_ident()]
        _, hooks = self._open.pop(mine[-1] if mine else -1)  # a generator may be left by another thread
        hooks.remove()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}: what is recorded is in the cache of "
            "`with nntap.capture(...) as cache:`"
        )
