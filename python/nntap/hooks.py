"""What a recorder puts on the modules of a model: taps for outputs, forward pre-hooks for inputs."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from nntap.core import INPUTS, OUTPUT, Recorder
from nntap.eager import run_as_before, run_eagerly

Hooks = Any  # an OrderedDict by hook number; torch declares it as a dict


class InstalledHooks:
    """Taps and hooks that are on the modules from now until `remove`.

    A tap stands where ``Module.__call__`` looks for a compiled call, and so sees what a module gives back after all
    its hooks, at a tenth of what a forward hook costs. Inputs are recorded by a forward pre-hook behind the others,
    because that is what ``forward`` is given. It is put where ``register_forward_pre_hook`` puts it, under one number
    that torch's own counter gave; the method itself costs ten times as much a module.
    """

    def __init__(
        self,
        root: torch.nn.Module,
        modules: Sequence[torch.nn.Module],
        recorder: Recorder,
        slots: Sequence[int],
        fused: Sequence[torch.nn.Module] = (),
    ) -> None:
        self._modules = modules
        self._recorder = recorder
        self._inputs: InputHooks | None = None
        self._unfused: list[RemovableHandle] = []
        self._tapped = False
        try:
            run_eagerly(self)
            self._unfused = [layer.register_forward_pre_hook(_record_nothing) for layer in fused]
            if INPUTS in slots:
                self._inputs = InputHooks(root, modules, recorder)
            if OUTPUT in slots:
                self._tapped = True
                recorder.tap(modules)
        except BaseException:
            self._take_off()
            raise

    def remove(self) -> None:
        """Takes everything off; nothing more is recorded."""
        lost = self._take_off()
        if lost > 0:
            warnings.warn(
                f"{lost} of the captured modules were compiled inside the block, and not recorded from then on. "
                "Compile before the block; captured models run eagerly.",
                RuntimeWarning,
                stacklevel=3,
            )

    def _take_off(self) -> int:
        """Returns how many taps were not there any more. Whatever raises, all the rest is taken off."""
        with ExitStack() as last_first:
            last_first.callback(run_as_before, self)
            for handle in self._unfused:
                last_first.callback(handle.remove)
            if self._inputs is not None:
                last_first.callback(self._inputs.remove)
            last_first.callback(self._recorder.close)
            return self._recorder.untap(self._modules) if self._tapped else 0


def fused_layers(modules: Iterable[torch.nn.Module], wanted: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The layers that would run as one fused operation of torch, without calling the modules in them that are wanted.

    A `torch.nn.TransformerEncoderLayer` does so in eval mode, unless it or a module in it has a hook; a tap is none.
    """
    layers = [module for module in modules if isinstance(module, torch.nn.TransformerEncoderLayer)]
    if not layers:
        return []
    all_wanted = set(wanted)
    return [layer for layer in layers if any(inner is not layer and inner in all_wanted for inner in layer.modules())]


class InputHooks:
    """Forward pre-hooks with kwargs, behind all others of their modules at the start of each call of the root."""

    def __init__(self, root: torch.nn.Module, modules: Sequence[torch.nn.Module], recorder: Recorder) -> None:
        self._number = RemovableHandle(OrderedDict()).id
        self._hooks: list[Hooks] = [module._forward_pre_hooks for module in modules]
        self._flags = [module._forward_pre_hooks_with_kwargs for module in modules]
        made = recorder.hooks()
        self._order = root.register_forward_pre_hook(_KeepLast(self._number, self._hooks))
        for hooks, flags, hook in zip(self._hooks, self._flags, made, strict=True):
            flags[self._number] = True  # before the hook, which another thread may call at once
            hooks[self._number] = hook

    def remove(self) -> None:
        self._order.remove()
        for hooks in (*self._hooks, *self._flags):
            hooks.pop(self._number, None)


class _KeepLast:
    """A pre-hook of the captured module that moves the recorder's hooks behind those added inside the block.

    They would run after ours, and edit what we have recorded.
    """

    def __init__(self, number: int, hooks: list[Hooks]) -> None:
        self._number = number
        self._hooks = hooks

    def __call__(self, *_: Any) -> None:
        for hooks in self._hooks:
            if len(hooks) > 1:
                with suppress(KeyError):  # taken off meanwhile
                    hooks.move_to_end(self._number)

    def __reduce__(self) -> Any:
        return copied_hook, ()


def copied_tap() -> None:
    """What stands for a tap in a copy or a pickle of a module: what torch has where nothing was compiled."""
    return None


def copied_hook() -> Callable[..., None]:
    """What stands for a hook in a copy or a pickle of a model that is made while it is captured."""
    return _record_nothing


def _record_nothing(*_: Any) -> None:
    return None
