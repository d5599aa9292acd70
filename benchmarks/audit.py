"""What a contestant recorded: how many values are what the modules gave back, and how many bytes it had to move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.contestants.way import Location, Request, Way
from nntap.nest import tensors_in


@dataclass(frozen=True)
class Audit:
    """One forward of a contestant, next to clones that hooks made at the same moments.

    `right`, `wrong` and `missing` count values, one a visit of a module (two with inputs). `bytes_recorded` are those
    of all recorded tensors; `bytes_moved` those that lie in memory of the contestant's own, each counted once: an alias
    of the model's tensor moves nothing. `moved_sizes` are the bytes of each piece of such memory.
    """

    right: int
    wrong: int
    missing: int
    bytes_recorded: int
    bytes_moved: int
    moved_sizes: tuple[int, ...]


class _Truth:
    """Clones of what modules take in and give back, by location, a list of tensors a visit.

    Holds the originals too, so that no address is used twice and an alias can be told from a copy.
    """

    def __init__(self) -> None:
        self.values: defaultdict[Location, list[list[torch.Tensor]]] = defaultdict(list)
        self._originals: list[torch.Tensor] = []

    def add(self, location: Location, value: Any) -> None:
        originals = list(tensors_in(value))
        self._originals += originals
        self.values[location].append([tensor.detach().clone() for tensor in originals])

    def memory(self) -> set[int]:
        return {tensor.untyped_storage().data_ptr() for tensor in self._originals}


def audit(way: Way, request: Request) -> Audit:
    with torch.no_grad(), way.around(), _watched(way, request) as truth:
        made = way.run()
        if way.beside is not None:
            way.beside()
    recorded: defaultdict[Location, list[list[torch.Tensor]]] = defaultdict(list)
    for location, value in way.records(made):
        recorded[location].append(list(tensors_in(value)))
    right = wrong = missing = 0
    for location, visits in truth.values.items():
        found = recorded.get(location, [])
        same = sum(_same(mine, true, request) for mine, true in zip(found, visits, strict=False))
        absent = max(0, len(visits) - len(found))
        right += same
        missing += absent
        wrong += max(len(visits), len(found)) - absent - same
    tensors = [tensor for visits in recorded.values() for visit in visits for tensor in visit]
    moved = [] if way.aliases else _moved(tensors, truth.memory())
    return Audit(right, wrong, missing, sum(tensor.nbytes for tensor in tensors), sum(moved), tuple(moved))


def _same(recorded: list[torch.Tensor], true: list[torch.Tensor], request: Request) -> bool:
    return len(recorded) == len(true) and all(
        mine.shape == other.shape and torch.equal(mine.to(other.device), other.to(request.dtype or other.dtype))
        for mine, other in zip(recorded, true, strict=True)
    )


def _moved(tensors: list[torch.Tensor], memory_of_model: set[int]) -> list[int]:
    own: dict[int, int] = {}
    for tensor in tensors:
        memory = tensor.untyped_storage().data_ptr()
        if memory not in memory_of_model:
            own[memory] = max(own.get(memory, 0), tensor.nbytes)
    return list(own.values())


@contextmanager
def _watched(way: Way, request: Request) -> Iterator[_Truth]:
    truth = _Truth()
    handles = []
    for path, module in way.watch.items():

        def give(module: Any, args: Any, output: Any, path: str = path) -> None:
            truth.add((path, "output"), output)

        def take(module: Any, args: Any, kwargs: Any, path: str = path) -> None:
            truth.add((path, "inputs"), (args, kwargs))

        handles.append(module.register_forward_hook(give))
        if request.inputs:
            handles.append(module.register_forward_pre_hook(take, with_kwargs=True))
    try:
        yield truth
    finally:
        for handle in handles:
            handle.remove()
