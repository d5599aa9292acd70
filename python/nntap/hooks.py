"""A recorder's hooks on the modules of a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from nntap.core import INPUTS, OUTPUT, Recorder

Hooks = Any  # an OrderedDict by hook number; torch declares it as a dict


def copied_hook() -> Callable[..., None]:
    """What stands for a hook in a copy or a pickle of a model that is made while it is captured."""
    return _record_nothing


def _record_nothing(*_: Any) -> None:
    return None


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


class InstalledHooks:
    """Hooks that are on the modules from now until `remove`.

    They are put where ``register_forward_hook`` puts them, under one number that torch's own counter gave; the
    method itself costs ten times as much a module, which would be most of a small recording.
    """

    def __init__(
        self, root: torch.nn.Module, modules: Sequence[torch.nn.Module], recorder: Recorder, slots: Sequence[int]
    ) -> None:
        self._recorder = recorder
        self._number = RemovableHandle(OrderedDict()).id
        self._hooks: list[Hooks] = []
        self._flags: list[dict[int, bool]] = []  # which hooks want the call's kwargs
        try:
            if OUTPUT in slots:
                self._add_outputs(modules, paired=INPUTS in slots)
            if INPUTS in slots:
                self._add_inputs(modules)
            self._order = root.register_forward_pre_hook(_KeepLast(self._number, self._hooks))
        except BaseException:
            self._take_off()
            raise

    def _add_outputs(self, modules: Sequence[torch.nn.Module], paired: bool) -> None:
        number, hook = self._number, self._recorder.hook
        for path, module in enumerate(modules):
            hooks = module._forward_hooks
            hooks[number] = hook(path, OUTPUT)
            self._hooks.append(hooks)
            if paired:
                self._want_kwargs(module._forward_hooks_with_kwargs)

    def _add_inputs(self, modules: Sequence[torch.nn.Module]) -> None:
        for path, module in enumerate(modules):
            hooks = module._forward_pre_hooks
            hooks[self._number] = self._recorder.hook(path, INPUTS)
            self._hooks.append(hooks)
            self._want_kwargs(module._forward_pre_hooks_with_kwargs)

    def _want_kwargs(self, flags: dict[int, bool]) -> None:
        flags[self._number] = True
        self._flags.append(flags)

    def remove(self) -> None:
        """Takes the hooks off; nothing more is recorded."""
        self._order.remove()
        self._take_off()

    def _take_off(self) -> None:
        number = self._number
        for hooks in (*self._hooks, *self._flags):
            hooks.pop(number, None)
        self._recorder.close()
