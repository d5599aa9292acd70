"""A recorder's hooks on the modules of a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle

from nntap.core import INPUTS, OUTPUT, Recorder

Hooks = Any  # an OrderedDict by hook number; torch declares it as a dict


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
        self._outputs: list[Hooks] = []
        self._inputs: list[tuple[Hooks, dict[int, bool]]] = []
        try:
            if OUTPUT in slots:
                self._add_outputs(modules)
            if INPUTS in slots:
                self._add_inputs(modules)
            self._order = root.register_forward_pre_hook(self._keep_last)
        except BaseException:
            self._take_off()
            raise

    def _add_outputs(self, modules: Sequence[torch.nn.Module]) -> None:
        number, hook = self._number, self._recorder.hook
        for path, module in enumerate(modules):
            hooks = module._forward_hooks
            hooks[number] = hook(path, OUTPUT)
            self._outputs.append(hooks)

    def _add_inputs(self, modules: Sequence[torch.nn.Module]) -> None:
        for path, module in enumerate(modules):
            hooks, with_kwargs = module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs
            hooks[self._number] = self._recorder.hook(path, INPUTS)
            with_kwargs[self._number] = True
            self._inputs.append((hooks, with_kwargs))

    def _keep_last(self, *_: Any) -> None:
        # Hooks added inside the block would run after ours, and edit what we have recorded.
        for hooks in [*self._outputs, *(hooks for hooks, _ in self._inputs)]:
            if len(hooks) > 1:
                hooks.move_to_end(self._number)

    def remove(self) -> None:
        """Takes the hooks off; nothing more is recorded."""
        self._order.remove()
        self._take_off()

    def _take_off(self) -> None:
        number = self._number
        for hooks in self._outputs:
            hooks.pop(number, None)
        for hooks, with_kwargs in self._inputs:
            hooks.pop(number, None)
            with_kwargs.pop(number, None)
        self._recorder.close()
