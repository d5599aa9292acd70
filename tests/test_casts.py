"""The casts of a CPU, by every set of instructions that this one has: others use only the fastest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gathers import CODES, assert_bits_are, every_input
from nntap import _core

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
PAIRS = [(source, to) for source in FLOATS for to in FLOATS if to != source]
FLAVOURS = _core.testing.cast_flavours()
LANES = 16
"""The most elements that one instruction casts."""

flavours = pytest.mark.parametrize("flavour", FLAVOURS)
pairs = pytest.mark.parametrize(("source", "to"), PAIRS, ids=lambda dtype: str(dtype).removeprefix("torch."))


def aligned(nbytes: int, misalignment: int) -> torch.Tensor:
    """Bytes that begin so far from a cache line, between guards that hold 0xAB."""
    memory = torch.full((nbytes + 192,), 0xAB, dtype=torch.uint8)
    start = 64 + (misalignment - memory.data_ptr()) % 64
    return memory[start : start + nbytes]


def guards(out: torch.Tensor) -> Iterator[torch.Tensor]:
    memory = torch.empty(0, dtype=torch.uint8).set_(out.untyped_storage())
    yield memory[: out.storage_offset()]
    yield memory[out.storage_offset() + out.numel() :]


def cast(flavour: str, values: torch.Tensor, to: torch.dtype, misalignment: int = 0) -> torch.Tensor:
    out = aligned(values.numel() * to.itemsize, misalignment)
    _core.testing.run_cast(flavour, CODES[values.dtype], values.data_ptr(), CODES[to], out.data_ptr(), values.numel())
    for guard in guards(out):
        assert bool((guard == 0xAB).all()), "bytes beside the output were written"
    return out.clone().view(to)


def test_the_portable_casts_are_always_there() -> None:
    assert FLAVOURS[-1] in ("portable", "neon")
    assert len(set(FLAVOURS)) == len(FLAVOURS)


@flavours
@pairs
def test_every_value_is_cast_as_torch_casts_it(flavour: str, source: torch.dtype, to: torch.dtype) -> None:
    values = every_input(source).repeat(5 if source.itemsize == 2 else 1)
    expected = values.to(to)
    for misalignment in (0, to.itemsize):  # on a cache line, a large output goes past the caches; else it does not
        assert_bits_are(cast(flavour, values, to, misalignment), expected, any_nan=True, what=misalignment)


@flavours
@pairs
def test_few_values_are_cast_as_many_are(flavour: str, source: torch.dtype, to: torch.dtype) -> None:
    values = every_input(source)[-5 * LANES :]
    whole = cast(flavour, values, to)
    for first in (0, 1, 3):
        for count in range(3 * LANES + 2):
            got = cast(flavour, values[first : first + count], to, misalignment=2 * to.itemsize)
            assert_bits_are(got, whole[first : first + count], any_nan=False, what=(first, count))


def test_a_set_of_another_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="this processor has no casts by sve9"):
        _core.testing.run_cast("sve9", CODES[torch.half], 0, CODES[torch.half], 0, 0)
    with pytest.raises(ValueError, match=r"no cast from .* to float16"):
        _core.testing.run_cast(FLAVOURS[0], CODES[torch.int16], 0, CODES[torch.half], 0, 0)
