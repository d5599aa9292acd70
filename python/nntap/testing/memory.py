"""What a model in a simulation computes on: device memory, with what it holds in the order of its stream."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch

from nntap.testing.simulator import Simulator, Stream

DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.uint8, torch.int16, torch.int64, torch.complex128),
)
FLOATS = DTYPES[:6]
MOST = 1 << 14  # elements of a buffer


def _values() -> dict[torch.dtype, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-999, 1000, (4 * MOST,), generator=generator) / 8
    return {dtype: (numbers.abs() if dtype == torch.uint8 else numbers).to(dtype) for dtype in DTYPES}


_VALUES = _values()


def some_values(random: Random, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Values that no other call is likely to give. Nobody may change them."""
    start = random.randrange(3 * MOST)
    return _VALUES[dtype][start : start + count]


class Buffer:
    """Flat device memory, and what it holds once its stream has done all that is enqueued now."""

    def __init__(self, sim: Simulator, stream: Stream, tensor: torch.Tensor, truth: torch.Tensor) -> None:
        self.sim = sim
        self.home = stream  # whose memory it is
        self.stream = stream  # that works on it now
        self.tensor = tensor
        self.truth = truth  # never changed in place: others hold it too

    def bring(self, stream: Stream) -> None:
        """From now on that stream of the same device works on it."""
        if stream.handle != self.stream.handle:
            self.sim.wait_stream(stream, self.stream)
            self.stream = stream

    def overwrite(self, values: torch.Tensor, start: int = 0) -> None:
        """In place, from that element on."""
        part = self.tensor[start : start + values.numel()]
        if self.stream.lazy:
            self.sim.write(part, values, self.stream)
        else:
            part.copy_(values)
        if values.numel() == self.truth.numel():
            self.truth = values
        else:
            self.truth = self.truth.clone()
            self.truth[start : start + values.numel()] = values

    def __del__(self) -> None:
        # As torch asks of who frees memory that another stream has worked on: its own waits for that.
        if self.home.handle != self.stream.handle and not self.sim.over:
            self.sim.wait_stream(self.home, self.stream)


Look = Callable[[torch.Tensor], torch.Tensor]

LOOKS: tuple[Look, ...] = (
    lambda flat: flat,
    lambda flat: flat,
    lambda flat: flat[: flat.numel() // 3 * 3].view(3, flat.numel() // 3),
    lambda flat: flat[: flat.numel() // 4 * 4].view(flat.numel() // 4, 4).t(),
    lambda flat: flat[: flat.numel() // 6 * 6].view(2, flat.numel() // 6, 3).permute(2, 0, 1),
    lambda flat: flat[::2],
    lambda flat: flat[1:],
    lambda flat: flat[:5].expand(3, -1),
    lambda flat: flat[-1:].view(()),
    lambda flat: flat[:0],
)
"""Ways to look at a flat tensor of at least one element."""


class Piece:
    """A tensor that a module may give back: a look at a buffer. The same object as long as it is handed on."""

    def __init__(self, buffer: Buffer, look: Look) -> None:
        self.buffer = buffer
        self.look = look
        self.recorded = False
        self.tensor = look(buffer.tensor)

    @property
    def truth(self) -> torch.Tensor:
        return self.look(self.buffer.truth)


def each(nest: Any, change: Callable[[Any], Any], kind: type = Piece) -> Any:
    """The nest with its pieces, or whatever else is of that kind, changed; other values by reference."""
    if isinstance(nest, kind):
        return change(nest)
    if isinstance(nest, (tuple, list)):
        return type(nest)(each(item, change, kind) for item in nest)
    if isinstance(nest, dict):
        return type(nest)(**{key: each(item, change, kind) for key, item in nest.items()})  # a ModelOutput takes fields
    return nest


def pieces_of(nest: Any) -> list[Piece]:
    found: list[Piece] = []
    each(nest, found.append)
    return found
