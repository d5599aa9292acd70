"""The adapter for nnsight 0.8: values are routed by nnsight, and only what happens to them is replaced.

nnsight's interleaver asks each cache of a run once for the locations it keeps (``"{path}.output"``), and gives it
every value that reaches one of them, after interventions and narrowed to the rows of the cache's invoke.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import nnsight
import torch
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import Mediator
from nnsight.intervention.tracer import InterleavingTracer

from nntap.cache import Cache
from nntap.core import INPUTS, OUTPUT, Recorder
from nntap.options import Options
from nntap.records import LiveRecords
from nntap.select import foreign, select
from nntap.tree import PathTree

_LOCATIONS = {OUTPUT: "output", INPUTS: "input"}
_CPU = torch.device("cpu")
_nnsight_cache = InterleavingTracer.cache


def install() -> None:
    InterleavingTracer.cache = cache


def uninstall() -> None:
    InterleavingTracer.cache = _nnsight_cache


def is_installed() -> bool:
    return InterleavingTracer.cache is cache


class Observer:
    """A cache as nnsight's interleaver sees it. The run's worker holds it until the run is over."""

    def __init__(self, recorder: Recorder, subscriptions: dict[str, int]) -> None:
        self._subscriptions = subscriptions
        self.observe_selected = recorder.record  # called by the interleaver with a subscription's code and a value

    def subscriptions(self) -> dict[str, int]:
        """The code to hand back with each value, by location. Not to be changed."""
        return self._subscriptions

    def wants(self, location: str) -> bool:
        return location in self._subscriptions

    def observe(self, location: str, value: Any) -> None:
        if location in self._subscriptions:
            self.observe_selected(self._subscriptions[location], value)


class EnvoyPaths:
    """The paths of an envoy tree, kept from one trace to the next. Holds neither envoys nor modules."""

    def __init__(self, root: Envoy) -> None:
        self._members = _members(root)
        self.paths: list[str] = [path for path, _ in root.modules(names=True)]
        self._subscriptions: dict[tuple[int, ...], dict[str, int]] = {}
        self.tree: PathTree | None = None

    def is_current(self, root: Envoy) -> bool:
        """Whether the tree is still made of the envoys it was made of."""
        return bool(self._members == _members(root))

    def subscriptions(self, paths: list[str], slots: list[int]) -> dict[str, int]:
        """Recorder codes by location; kept where every module is recorded, which takes as long as the rest."""
        everything = paths is self.paths
        known = self._subscriptions.get(tuple(slots)) if everything else None
        if known is None:
            known = {
                f"{path}.{_LOCATIONS[slot]}": 2 * index + slot for index, path in enumerate(paths) for slot in slots
            }
            if everything:
                self._subscriptions[tuple(slots)] = known
        return known


_known_paths: WeakKeyDictionary[Any, EnvoyPaths] = WeakKeyDictionary()


def _paths_of(root: Envoy) -> EnvoyPaths:
    known = _known_paths.get(root)
    if known is None or not known.is_current(root):
        known = _known_paths[root] = EnvoyPaths(root)
    return known


class EnvoyModel:
    """An envoy tree as selections see it: paths are the envoys', the root's is its own (``"model"``)."""

    def __init__(self, root: Envoy) -> None:
        self._root = root
        self.known = _paths_of(root)

    @property
    def tree(self) -> PathTree:
        if self.known.tree is None:
            # Envoys list children before parents; the tree wants the model's own order.
            envoys = sorted(self._envoys(), key=lambda named: named[0].count("."))
            aliases = {
                f"{path}.{alias}": getattr(envoy, alias).path for path, envoy in envoys for alias in envoy._aliases
            }
            self.known.tree = PathTree([path for path, _ in envoys], self._root.path, aliases)
        return self.known.tree

    def named_modules(self) -> list[tuple[str, torch.nn.Module]]:
        return [(path, envoy._module) for path, envoy in self._envoys()]

    def path_of(self, module: object) -> str | None:
        if isinstance(module, torch.nn.Module):
            envoy = self._root.interleaver.envoys.get(id(module))
            if envoy is None or envoy._module is not module:
                raise foreign(module)
            return str(envoy.path)
        if isinstance(module, Envoy):
            if module.interleaver is not self._root.interleaver:
                raise foreign(module)
            return str(module.path)
        return None

    def _envoys(self) -> list[tuple[str, Envoy]]:
        return list(self._root.modules(names=True))


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
    """
    mediator = _mediator()
    options = Options.check(device, dtype, detach, include_output, include_inputs)
    model = EnvoyModel(self.envoy)
    paths = model.known.paths if modules is None else select(modules, model)
    recorder = options.recorder(len(paths))
    mediator.caches.append(Observer(recorder, model.known.subscriptions(paths, options.slots)))
    # Saved, so that the cache survives the trace as a `.save()`d value does.
    return nnsight.save(Cache(LiveRecords(recorder, paths), lambda: model.tree))  # type: ignore[no-any-return]


def _mediator() -> Any:
    try:
        mediator = Mediator.current("tracer.cache()")
    except ValueError as error:
        raise ValueError(
            "tracer.cache() was called outside a trace: call it inside `with model.trace(...) as tracer:`, or, where "
            "the trace has invokes, inside `with tracer.invoke(...):`"
        ) from error
    if mediator.pending is not None:
        raise ValueError(
            "tracer.cache() was called after a model value was read or changed: call it at the start of the block"
        )
    return mediator


def _members(root: Envoy) -> list[Any]:
    # Weak references compare equal while they refer to the same living envoy.
    return list(root.interleaver.envoys.data.values())
