"""What a recorder puts on the modules of a model: taps for outputs, forward pre-hooks for inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
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
        self, root: torch.nn.Module, modules: Sequence[torch.nn.Module], recorder: Recorder, slots: Sequence[int]
    ) -> None:
        self._modules = modules
        self._recorder = recorder
        self._inputs: InputHooks | None = None
        try:
            run_eagerly(self)
            if INPUTS in slots:
                self._inputs = InputHooks(root, modules, recorder)
            if OUTPUT in slots:
                recorder.tap(modules)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Takes everything off; nothing more is recorded."""
        self._recorder.close()
        self._recorder.untap(self._modules)
        if self._inputs is not None:
            self._inputs.remove()
        run_as_before(self)


class InputHooks:
    """Forward pre-hooks with kwargs, behind all others of their modules at the start of each call of the root."""

    def __init__(self, root: torch.nn.Module, modules: Sequence[torch.nn.Module], recorder: Recorder) -> None:
        self._number = RemovableHandle(OrderedDict()).id
        self._hooks: list[Hooks] = [module._forward_pre_hooks for module in modules]
        self._flags = [module._forward_pre_hooks_with_kwargs for module in modules]
        made = recorder.hooks()
        self._order = root.register_forward_pre_hook(_KeepLast(self._number, self._hooks))
        for hooks, flags, hook in zip(self._hooks, self._flags, made, strict=True):
            hooks[self._number] = hook
            flags[self._number] = True

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
                hooks.move_to_end(self._number)

    def __reduce__(self) -> Any:
        return copied_hook, ()


def copied_hook() -> Callable[..., None]:
    """What stands for a hook in a copy or a pickle of a model that is made while it is captured."""
    return _record_nothing


def _record_nothing(*_: Any) -> None:
    return None
