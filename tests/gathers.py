"""What a launch of the gather+cast kernel is given and must give, and the kernel's run on the host."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch

from nntap import _core

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""A type of each size that the kernel copies without looking at it."""

CODES = {
    torch.float64: (2, 64),
    torch.float32: (2, 32),
    torch.float16: (2, 16),
    torch.bfloat16: (4, 16),
    torch.float8_e4m3fn: (10, 8),
    torch.float8_e5m2: (12, 8),
    torch.uint8: (1, 8),
    torch.int16: (0, 16),
    torch.int32: (0, 32),
    torch.int64: (0, 64),
    torch.complex128: (5, 128),
}
"""(code, bits), as DLPack has them."""

E4M3FN_SATURATES = not torch.tensor(1e9).to(torch.float8_e4m3fn).float().isnan().item()
"""What this torch makes of a value that is too large for float8_e4m3fn: 448 since 2.13, nan before."""

BLOCK = 16 * 1024
"""Bytes that one block of the grid copies."""


class Job(NamedTuple):
    """Elements [first, first + count), in row-major order, of a tensor in `memory`, converted to `to`."""

    memory: torch.Tensor
    """Bytes."""
    offset: int
    """Of the tensor's first element, in bytes; any."""
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    to: torch.dtype
    first: int
    count: int

    def expected(self) -> torch.Tensor:
        """What torch makes of it on a GPU. On an aarch64 CPU torch rounds a float64 to float16 at once."""
        reach = 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        nbytes = reach * self.dtype.itemsize if prod(self.size) else 0
        aligned = self.memory[self.offset : self.offset + nbytes].clone().view(self.dtype)
        tensor = aligned.as_strided(self.size, self.stride)
        elements = tensor.reshape(-1)[self.first : self.first + self.count]
        if (self.dtype, self.to) == (torch.float64, torch.float16):
            elements = elements.float()
        return elements.to(self.to)

    def raw(self, out: int) -> tuple[object, ...]:
        """As `_core.testing.run_gather_cast` takes it."""
        source = self.memory.data_ptr() + self.offset
        return (source, self.size, self.stride, CODES[self.dtype], out, CODES[self.to], self.first, self.count)


def job_of(tensor: torch.Tensor, to: torch.dtype, first: int = 0, count: int | None = None) -> Job:
    """Of a whole tensor, or a piece of it."""
    memory = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    offset = tensor.storage_offset() * tensor.itemsize
    count = tensor.numel() - first if count is None else count
    return Job(memory, offset, tensor.dtype, tuple(tensor.shape), tensor.stride(), to, first, count)


def random_bytes(nbytes: int, misalignment: int = 0, seed: int = 0) -> tuple[torch.Tensor, int]:
    """Memory, and where in it that many random bytes begin, so far from a 16-byte boundary."""
    memory = torch.randint(0, 256, (nbytes + 32,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return memory, (misalignment - memory.data_ptr()) % 16


def misaligned_job(dtype: torch.dtype, to: torch.dtype, count: int, misalignment: int, first: int = 0) -> Job:
    memory, offset = random_bytes((first + count) * dtype.itemsize, misalignment)
    return Job(memory, offset, dtype, (first + count,), (1,), to, first, count)


def assert_bits_are(got: torch.Tensor, expected: torch.Tensor, any_nan: bool, what: object = "") -> None:
    """Two rows of elements, bit for bit. `any_nan`: a nan is as good as another, for elements that were converted."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    expected = expected.contiguous().as_strided(got.shape, (1,))  # a lone element may have any stride
    words = WORDS[min(got.dtype.itemsize, 8)]
    wrong = got.view(words) != expected.view(words)
    if any_nan:
        wrong &= ~(got.float().isnan() & expected.float().isnan())
    assert not wrong.any(), f"{int(wrong.sum())} differ, first at {int(wrong.nonzero()[0])} {what}"


def run_on_host(jobs: Sequence[Job], saturates: bool = E4M3FN_SATURATES) -> list[torch.Tensor]:
    """The output of each job. Checks that nothing was written before it and after it."""
    guard, filled = 64, 0xAB
    outs = []
    for job in jobs:
        out = torch.full((job.count * job.to.itemsize + 3 * guard,), filled, dtype=torch.uint8)
        start = guard + (16 - out.data_ptr()) % 32  # on a 16-byte boundary, and no 32-byte one
        outs.append((out, start, start + job.count * job.to.itemsize))
    raw = [job.raw(out.data_ptr() + start) for job, (out, start, _) in zip(jobs, outs, strict=True)]
    _core.testing.run_gather_cast(raw, e4m3fn_saturates=saturates)
    for out, start, end in outs:
        assert bool((out[:start] == filled).all()), "bytes before the output were written"
        assert bool((out[end:] == filled).all()), "bytes after the output were written"
    return [out[start:end].clone().view(job.to) for job, (out, start, end) in zip(jobs, outs, strict=True)]


def check_on_host(*jobs: Job) -> None:
    for job, got in zip(jobs, run_on_host(jobs), strict=True):
        assert_bits_are(got, job.expected(), job.dtype != job.to, job[1:])


# ---- every value that matters ----


def every_input(dtype: torch.dtype) -> torch.Tensor:
    """All values of the small types; of float32 and float64 those where any rounding changes, and random ones."""
    if dtype.itemsize <= 2:
        return torch.arange(256**dtype.itemsize, dtype=torch.int32).to(WORDS[dtype.itemsize]).view(dtype)
    return _bits_of_float32() if dtype == torch.float32 else _bits_of_float64()


def _mantissas(bits: int, cuts: Sequence[int]) -> torch.Tensor:
    """Around the ties where low bits are cut off, with odd and even bits before them, and around each power."""
    found = {0, 1, 2**bits - 1}
    for cut in cuts:
        for kept in (0, 1, 2, 3, 2 ** (bits - cut) - 2, 2 ** (bits - cut) - 1):
            middle = (kept << cut) + (1 << (cut - 1))
            found |= {kept << cut, middle - 1, middle, middle + 1}
    for bit in range(bits):
        found |= {(1 << bit) - 1, 1 << bit, (1 << bit) + 1}
    return torch.tensor(sorted(value for value in found if value < 2**bits))


def _with_every_exponent(mantissas: torch.Tensor, exponent_bits: int, mantissa_bits: int) -> torch.Tensor:
    exponents = torch.arange(2**exponent_bits) << mantissa_bits
    positive = (exponents[:, None] + mantissas[None, :]).flatten()
    return torch.cat([positive, positive + (-1 << (exponent_bits + mantissa_bits))])


def _bits_of_float32() -> torch.Tensor:
    edges = _with_every_exponent(_mantissas(23, range(1, 24)), 8, 23)
    random = torch.randint(-(2**31), 2**31, (2_000_000,), generator=torch.Generator().manual_seed(0))
    return torch.cat([edges, random]).to(torch.int32).view(torch.float32)


def _bits_of_float64() -> torch.Tensor:
    edges = _with_every_exponent(_mantissas(52, (29, 36, 42, 45, 49, 50)), 11, 52)
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(-(2**63), 2**63 - 1, (1_000_000,), generator=generator).view(torch.float64)
    # A hair beside what float32 has: rounding twice, as torch does, is not rounding once.
    single = _bits_of_float32()[:1_000_000].double()
    beside = [single * (1 + step) for step in (2.0**-52, -(2.0**-52), 2.0**-30, 2.0**-40)]
    return torch.cat([edges.view(torch.float64), random, *beside])
