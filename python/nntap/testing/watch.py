"""A capture in a simulation, with what it must hold."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch

from nntap.standalone import capture

MISSING = object()  # nothing was recorded, or an error says that it may not have been


@dataclass
class Visit:
    """What one call of a module took in and gave back: nests with true values for tensors."""

    inputs: Any = MISSING
    output: Any = MISSING


class WrongValue(AssertionError):
    """A record is not what the module gave back."""


class Watch:
    """One capture. Another thread may read it while the model runs.

    Args:
        paths: The modules that it records, with the names that they have there.
        options: Of the capture.
    """

    def __init__(self, paths: dict[torch.nn.Module, str], options: dict[str, Any]) -> None:
        self.options = options
        self.dtype: torch.dtype | None = options["dtype"]
        self.on_device = options["device"] is None
        self.paths = paths
        self.expected: dict[str, list[Visit]] = {}
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # records that were read, and what they must be
        self._running = ExitStack()
        self.cache: Any = {}

    @classmethod
    def start(cls, root: torch.nn.Module, modules: list[torch.nn.Module], options: dict[str, Any]) -> Watch:
        """Records from now on until `stop`."""
        names = {module: name for name, module in root.named_modules()}
        started = cls({module: names[module] for module in modules}, options)
        started.cache = started._running.enter_context(capture(root, modules, **options))
        return started

    def stop(self) -> None:
        self._running.close()

    # ---- what the model does ----

    def takes(self, module: torch.nn.Module, inputs: Any) -> None:
        """The module is called with ``(args, kwargs)``."""
        if module in self.paths and self.options["include_inputs"]:
            self._visits(module).append(Visit(inputs=inputs))

    def takes_instead(self, module: torch.nn.Module, inputs: Any) -> None:
        """What the module that was called last takes, now that it is known."""
        if module in self.paths and self.options["include_inputs"]:
            self._visits(module)[-1].inputs = inputs

    def gives(self, module: torch.nn.Module, value: Any) -> bool:
        """Says whether it records the value."""
        if module not in self.paths or not self.options["include_output"]:
            return False
        visits = self._visits(module)
        if not self.options["include_inputs"]:
            visits.append(Visit())
        visits[-1].output = value
        return True

    def failed(self, module: torch.nn.Module) -> None:
        """The call of the module raised. Its visit may be missing, or lack an output."""
        visits = self.expected.get(self.paths[module], []) if module in self.paths else []
        if not visits:
            return
        if len(visits) > self.count(self.paths[module]):
            visits.pop()
        elif self.options["include_inputs"]:
            visits[-1].output = MISSING

    def count(self, path: str) -> int:
        return len(self.cache[path]) if path in self.cache else 0

    def _visits(self, module: torch.nn.Module) -> list[Visit]:
        return self.expected.setdefault(self.paths[module], [])

    # ---- reading ----

    def places(self) -> list[tuple[str, int]]:
        return [(path, number) for path, visits in list(self.expected.items()) for number in range(len(visits))]

    def read(self, path: str, number: int) -> None:
        """Reads a visit, compares it and keeps it; what is on the device may still be under way.

        Raises:
            WrongValue: If it is not what it must be.
            CudaError: If the driver failed.
        """
        visit, entry = self.expected[path][number], list(self.cache[path])[number]
        for name, truth in (("inputs", visit.inputs), ("output", visit.output)):
            if truth is not MISSING:
                self._compare(f"{path}[{number}].{name}", getattr(entry, name), truth)

    def read_beside(self, path: str, number: int) -> None:
        """The same while the model may be about to record the visit, or to give it up: as far as it is there."""
        visits = self.expected[path]
        seen = [(visit, visit.inputs, visit.output) for visit in visits[number : number + 1]]
        if not seen or number >= self.count(path):
            return
        (visit, inputs, output), entry = seen[0], list(self.cache[path])[number]
        for name, truth in (("inputs", inputs), ("output", output)):
            value = None if truth is MISSING else getattr(entry, name)
            if value is not None and any(visit is still for still in visits[number : number + 1]):
                self._compare(f"{path}[{number}].{name}", value, truth)

    def read_all(self, tolerated: tuple[type[Exception], ...]) -> None:
        """Reads every visit; where errors are tolerated, those that came to the host."""
        for path, number in self.places():
            with suppress(*tolerated):
                self.read(path, number)

    def check_kept(self) -> None:
        """Compares again all that was read."""
        for record, truth in self.kept:
            require_equal("a record that was read before", record, truth)

    def _compare(self, where: str, value: Any, truth: Any) -> None:
        fresh = len(self.kept)
        self._collect(where, value, truth)
        if not self.on_device:
            for record, right in self.kept[fresh:]:
                require_equal(where, record, right)

    def _collect(self, where: str, value: Any, truth: Any) -> None:
        if isinstance(truth, torch.Tensor):
            right = truth if self.dtype is None else truth.to(self.dtype)
            if not isinstance(value, torch.Tensor) or value.dtype != right.dtype or value.shape != right.shape:
                raise WrongValue(f"{where}: {_described(value)} instead of {_described(right)}")
            self.kept.append((value, right))
        elif isinstance(truth, (tuple, list)):
            if type(value) is not type(truth) or len(value) != len(truth):
                raise WrongValue(f"{where}: {_described(value)} instead of a {type(truth).__name__} of {len(truth)}")
            for item, right_item in zip(value, truth, strict=True):
                self._collect(where, item, right_item)
        elif isinstance(truth, dict):
            if type(value) is not type(truth) or list(value) != list(truth):
                raise WrongValue(f"{where}: {_described(value)} instead of a {type(truth).__name__} of {list(truth)}")
            for key, right_item in truth.items():
                self._collect(f"{where}[{key!r}]", value[key], right_item)
        elif value != truth:
            raise WrongValue(f"{where}: {value!r} instead of {truth!r}")


def require_equal(where: str, record: torch.Tensor, truth: torch.Tensor) -> None:
    """Raises WrongValue unless the bytes are the same."""
    if truth.dtype.itemsize == 1:
        record, truth = record.view(torch.uint8), truth.view(torch.uint8)
    if not torch.equal(record, truth):
        wrong = int((record != truth).sum())
        raise WrongValue(f"{where}: {wrong} of {truth.numel()} elements of {_described(truth)} are wrong")


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
