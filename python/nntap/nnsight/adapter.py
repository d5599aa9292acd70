"""What a generation of nnsight must provide, and all that its generations share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, Protocol

import nnsight
import torch

from nntap.cache import Cache
from nntap.core import Recorder
from nntap.errors import UnsupportedNnsightError
from nntap.nnsight.envoys import EnvoyModel
from nntap.options import Options
from nntap.records import LiveRecords
from nntap.select import select

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recording:
    """One call of ``tracer.cache()``, ready to be fed."""

    recorder: Recorder
    cache: Cache
    model: EnvoyModel
    paths: list[str]
    slots: list[int]

    def codes(self) -> dict[str, int]:
        """What ``recorder.record`` wants with a value, by nnsight's name of the location (``"{path}.output"``)."""
        return self.model.known.codes(self.paths, self.slots)


class Adapter(Protocol):
    """One module of this package each; chosen by the installed version."""

    RELIES_ON: Mapping[type, tuple[str, ...]]
    """Names of nnsight's that the adapter uses: attributes of a class or of its instances."""

    def tracer_class(self) -> type:
        """The class whose ``cache`` method users call."""

    def root(self, tracer: Any) -> Any:
        """The envoy of the whole model."""

    def worker(self, tracer: Any) -> Any:
        """nnsight's object for the block that is running now, or None outside a trace."""

    def members(self, root: Any) -> list[Any] | None:
        """Weak references to all envoys of a tree, cheaply, or None where nnsight does not keep them."""

    def aliases(self, envoy: Any) -> Iterable[str]:
        """Other names that the envoy's children go by."""

    def replacements(self) -> Iterable[tuple[type, str, Any]]:
        """Further methods to replace while nntap is installed: the class, the name, and what takes its place."""

    def feed(self, recording: Recording, worker: Any) -> None:
        """Has nnsight give the recording every value it asks for, after interventions, its block's rows only."""


class Installation:
    """Puts an adapter's ``cache`` in the place of nnsight's, and back."""

    def __init__(self, adapter: Adapter, version: str) -> None:
        _check_names(adapter, version)
        ours = [(adapter.tracer_class(), "cache", make_cache_method(adapter)), *adapter.replacements()]
        self._methods = [(owner, name, owner.__dict__[name], method) for owner, name, method in ours]

    @property
    def active(self) -> bool:
        return all(owner.__dict__[name] is ours for owner, name, _, ours in self._methods)

    def put(self) -> None:
        for owner, name, _, ours in self._methods:
            setattr(owner, name, ours)

    def take_back(self) -> None:
        for owner, name, nnsights, _ in self._methods:
            setattr(owner, name, nnsights)


def _check_names(adapter: Adapter, version: str) -> None:
    for owner, names in adapter.RELIES_ON.items():
        known = _names_in(owner)
        for name in names:
            if not hasattr(owner, name) and name not in known:
                raise UnsupportedNnsightError(
                    f"nnsight {version} has no {owner.__module__}.{owner.__qualname__}.{name}, which nntap relies on; "
                    "install a version that nntap supports, or use nntap.capture, which needs no nnsight"
                )


def _names_in(owner: type) -> set[str]:
    # Attributes that only instances have are named in the code of the class's methods.
    return {name for function in vars(owner).values() if isfunction(function) for name in function.__code__.co_names}


def make_cache_method(adapter: Adapter) -> Any:
    """The method that takes the place of ``tracer.cache``."""

    def cache(
        self: Any,
        modules: Any = None,
        device: Any = _CPU,
        dtype: Any = None,
        detach: bool = True,
        include_output: bool = True,
        include_inputs: bool = False,
        non_blocking: bool = False,
    ) -> Cache:
        """Records activations of many modules during the run, on nntap's core.

        Takes what nnsight's own ``tracer.cache()`` takes; ``modules`` may also be a module, a glob, a compiled regular
        expression, a predicate ``(path, module) -> bool`` or a list of these. ``non_blocking`` changes nothing: every
        record is complete when it is read.

        Raises:
            ValueError: Outside a trace, or for a device or dtype that is not allowed.
            UnknownModuleError: If part of ``modules`` matches nothing.
            TypeError: For an argument of the wrong type.
        """
        worker = adapter.worker(self)
        if worker is None:
            raise ValueError(
                "tracer.cache() was called outside a trace: call it inside `with model.trace(...) as tracer:`, or, "
                "where the trace has invokes, inside `with tracer.invoke(...):`"
            )
        options = Options.check(device, dtype, detach, include_output, include_inputs)
        root = adapter.root(self)
        model = EnvoyModel(root, adapter.members(root), adapter.aliases)
        paths = select(modules, model)
        recorder = options.recorder(len(paths))
        made = Cache(LiveRecords(recorder, paths), lambda: model.tree)
        adapter.feed(Recording(recorder, made, model, paths, options.slots), worker)
        return nnsight.save(made)  # type: ignore[no-any-return]  # survives the trace as a `.save()`d value does

    return cache
