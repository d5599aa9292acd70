"""What a contestant is: a way to record a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.models import Subject, Unsuited
from benchmarks.packages import needs_package

Location = tuple[str, str]
"""A module's path, as ``named_modules()`` has it, and "output" or "inputs"."""

Records = Iterator[tuple[Location, Any]]
"""A location and a value for each visit, in the order of the visits."""


@dataclass(frozen=True)
class Request:
    """What is to be recorded, and where to.

    `modules` are paths, or None for every module. `device` and `dtype` as `nntap.capture` takes them.
    """

    modules: tuple[str, ...] | None = None
    inputs: bool = False
    device: str | None = "cpu"
    dtype: torch.dtype | None = None

    def wants(self, path: str) -> bool:
        return self.modules is None or path in self.modules

    def moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where the request wants it, the way people write it: an alias where nothing has to change."""
        return tensor.detach().to(device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Way:
    """One contestant, ready to run one model.

    Attributes:
        run: Makes one run and gives back what `records` lists afterwards.
        watch: The modules that `run` calls, by the paths in its records.
        around: Entered before each run and left after it, off the clock.
        floor: The bare run it is measured against, where its model is not the subject's own.
        beside: What to run to have the watched modules called, where `run` does not call them itself.
        aliases: It keeps the model's own tensors, and `beside` would hide that.
    """

    run: Callable[[], Any]
    records: Callable[[Any], Records]
    watch: Mapping[str, nn.Module]
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    floor: Callable[[], Any] | None = None
    beside: Callable[[], Any] | None = None
    aliases: bool = False


@dataclass(frozen=True)
class Contestant:
    """`package` is the module that it needs. `make` raises `Unsuited` where it does not apply."""

    name: str
    make: Callable[[Subject, Request], Way]
    package: str | None = None

    def way(self, subject: Subject, request: Request) -> Way:
        """Raises `Unsuited` with the reason why there is none."""
        if self.package is not None:
            needs_package(self.package)
        return self.make(subject, request)


def watched(model: nn.Module, request: Request) -> dict[str, nn.Module]:
    """The modules of a model that are recorded, by path."""
    return {path: module for path, module in model.named_modules() if request.wants(path)}


def outputs_only(request: Request) -> None:
    """For contestants that cannot record inputs."""
    if request.inputs:
        raise Unsuited("records outputs only")
