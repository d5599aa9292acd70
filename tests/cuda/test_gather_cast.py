"""The gather+cast kernel, run on the host: the same source that NVRTC compiles for GPUs.

Every run also fails if it reads a byte that is no element of its source, or writes one outside its output.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gathers import (
    BLOCK,
    CODES,
    E4M3FN_SATURATES,
    FLOATS,
    WORDS,
    Job,
    assert_bits_are,
    check_on_host,
    every_input,
    job_of,
    misaligned_job,
    random_bytes,
    run_on_host,
)
from nntap import _core
from strategies import Layout, layouts

PAIRS = [(a, b) for a in FLOATS for b in FLOATS if a != b]

names = pytest.mark.parametrize(("dtype", "to"), PAIRS, ids=[f"{a}-{b}".replace("torch.", "") for a, b in PAIRS])


# ---- values ----


@names
def test_a_cast_gives_torchs_bits(dtype: torch.dtype, to: torch.dtype) -> None:
    check_on_host(job_of(every_input(dtype), to))


@pytest.mark.parametrize("dtype", [dtype for dtype in FLOATS if dtype.itemsize > 1])
@pytest.mark.parametrize("saturates", [True, False])
def test_what_is_too_large_for_float8_e4m3fn_becomes_448_or_nan(dtype: torch.dtype, saturates: bool) -> None:
    source = every_input(dtype)
    to = torch.float8_e4m3fn
    (got,) = run_on_host([job_of(source, to)], saturates=saturates)
    got = got.view(torch.uint8)  # which every torch can index
    single = source.float()
    fits = single.abs() <= 464  # halfway from 448 to the next one, if there were one; a tie, and 448 is the even side
    assert_bits_are(got[fits].view(to), single[fits].to(to), any_nan=True)
    large = ~fits & ~single.isnan()
    wanted = torch.tensor(448.0 if saturates else float("nan")).to(to).view(torch.uint8)
    assert bool((got[large] & 0x7F == wanted).all())
    assert bool(got[single.isnan()].view(to).float().isnan().all())
    assert bool((got >> 7 == single.signbit().byte())[~single.isnan()].all())


def test_the_kernel_converts_floats_and_copies_everything() -> None:
    can = _core.testing.can_convert
    for dtype in CODES:
        for to in CODES:
            assert can(CODES[dtype], CODES[to]) == (dtype == to or {dtype, to} <= set(FLOATS))
    assert can((7, 8), (7, 8))  # float8_e3m4, of which the kernel knows nothing
    assert not can((7, 8), (2, 32))
    assert not can((0, 24), (0, 24))


# ---- rows that lie anywhere ----


@pytest.mark.parametrize("item", WORDS)
def test_a_copy_is_right_at_every_alignment_and_size(item: int) -> None:
    block = BLOCK // item
    small, large = (0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 100, 255), (block - 1, block, block + 1, 3 * block + 7)
    for misalignment in range(16):
        for count in small + large:
            check_on_host(misaligned_job(WORDS[item], WORDS[item], count, misalignment))


@names
def test_a_cast_is_right_at_every_alignment_and_size(dtype: torch.dtype, to: torch.dtype) -> None:
    """Also where elements are not aligned to their own size."""
    for misalignment in range(16):
        for count in (0, 1, 3, 4, 5, 61, 4095, 4096, 4099):
            check_on_host(misaligned_job(dtype, to, count, misalignment))


@pytest.mark.parametrize("dtype", [*WORDS.values(), torch.float16])
def test_a_piece_may_begin_anywhere(dtype: torch.dtype) -> None:
    to = torch.float32 if dtype == torch.float16 else dtype
    for first in (1, 2, 3, 5, 8, 13, 16, 1000, BLOCK + 1):
        for count in (1, 17, BLOCK // 2 + 3):
            check_on_host(misaligned_job(dtype, to, count, 0, first))


# ---- strides ----


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any type in any layout, at any alignment, whole or a piece."""
    layout: Layout = draw(layouts().filter(lambda layout: len(layout.size) <= 8))
    dtype = draw(st.sampled_from([*WORDS.values(), *FLOATS]))
    to = draw(st.sampled_from(FLOATS)) if dtype in FLOATS else dtype
    misalignment = draw(st.sampled_from([0, 0, dtype.itemsize % 16, 1, 8]))
    memory, offset = random_bytes(layout.storage_elements() * dtype.itemsize, misalignment, draw(st.integers(0, 99)))
    offset += layout.offset * dtype.itemsize
    numel = torch.Size(layout.size).numel()
    first = draw(st.one_of(st.just(0), st.integers(0, numel)))
    count = draw(st.one_of(st.just(numel - first), st.integers(0, numel - first)))
    return Job(memory, offset, dtype, layout.size, layout.stride, to, first, count)


@given(jobs())
def test_any_layout_is_gathered_in_order(job: Job) -> None:
    check_on_host(job)


@given(st.lists(jobs(), min_size=1, max_size=16))
def test_the_jobs_of_a_launch_do_not_meet(batch: list[Job]) -> None:
    check_on_host(*batch)


LARGE_SIZES = [(2, 1), (3, 5), (4, 33), (64, 64), (100, 260), (128, 1000), (1000, 128), (33, 4096), (257, 513)]


@given(
    *(st.sampled_from(LARGE_SIZES), st.sampled_from([*WORDS.values(), *FLOATS]), st.sampled_from(FLOATS)),
    *(st.booleans(), st.integers(0, 20), st.integers(0, 3), st.integers(1, 2)),
)
@example((1000, 128), torch.float32, torch.float16, True, 0, 0, 1)
@example((1000, 128), torch.int16, torch.float16, True, 7, 0, 1)
def test_large_matrices_are_gathered_in_order(
    size: tuple[int, int], dtype: torch.dtype, to: torch.dtype, transposed: bool, first: int, pad: int, step: int
) -> None:
    """Transposed ones, rows with a gap after each, every other element; more than a block of each."""
    if dtype not in FLOATS:
        to = dtype
    rows, columns = size
    stride = (step, rows * step + pad) if transposed else (columns * step + pad, step)
    reach = 1 + (rows - 1) * stride[0] + (columns - 1) * stride[1]
    memory, offset = random_bytes(reach * dtype.itemsize, pad * dtype.itemsize % 16)
    first = min(first, rows * columns)
    check_on_host(Job(memory, offset, dtype, size, stride, to, first, rows * columns - first))


def test_a_batch_of_transposed_matrices_is_gathered_in_order() -> None:
    batch = torch.randn(3, 8, 96, 40).transpose(2, 3)
    check_on_host(job_of(batch, torch.half), job_of(batch, torch.float32, first=5), job_of(batch[:, ::2], torch.half))


@pytest.mark.parametrize(("dtype", "to"), [(torch.uint8, torch.uint8), (torch.float16, torch.float32)])
def test_pieces_of_more_elements_than_32_bits_count(dtype: torch.dtype, to: torch.dtype) -> None:
    size, stride = (2**17, 3, 2**15), (0, 1, 0)
    memory, offset = random_bytes(3 * dtype.itemsize)
    for first in (0, 2**31 - 5, 2**32 - 5, 2**33 + 2**15 - 3):
        count = 70_001
        job = Job(memory, offset, dtype, size, stride, to, first, count)
        (got,) = run_on_host([job])
        three = memory[offset : offset + 3 * dtype.itemsize].clone().view(dtype)
        expected = three[torch.arange(first, first + count) // 2**15 % 3].to(to)
        assert_bits_are(got, expected, any_nan=True)


# ---- launches ----


def test_a_launch_has_blocks_for_each_job_and_none_for_nothing() -> None:
    run = _core.testing.run_gather_cast
    assert run([], e4m3fn_saturates=True) == 0
    source, out = torch.zeros(3 * BLOCK), torch.zeros(3 * BLOCK + 4)
    at = out.data_ptr() + (-out.data_ptr()) % 16

    def job(count: int, to: torch.dtype) -> tuple[object, ...]:
        return (source.data_ptr(), (3 * BLOCK,), (1,), CODES[torch.float32], at, CODES[to], 0, count)

    counts = {0: 0, 1: 1, BLOCK // 4: 1, BLOCK // 4 + 1: 2, BLOCK: 4}
    for count, blocks in counts.items():
        assert run([job(count, torch.float32)], e4m3fn_saturates=True) == blocks
        assert run([job(count, torch.float16)], e4m3fn_saturates=True) == blocks
    assert run([job(count, torch.float32) for count in counts], e4m3fn_saturates=True) == sum(counts.values())


def test_what_one_launch_cannot_do_is_refused() -> None:
    run = _core.testing.run_gather_cast
    byte = torch.zeros(32, dtype=torch.uint8)
    at = byte.data_ptr() + (-byte.data_ptr()) % 16
    huge = (at, (2**46,), (0,), CODES[torch.complex128], at, CODES[torch.complex128], 0, 2**46)
    with pytest.raises(ValueError, match=f"one launch cannot copy {2**46} elements; copy them in pieces"):
        run([huge], e4m3fn_saturates=True)
    small = (at, (1,), (1,), CODES[torch.uint8], at, CODES[torch.uint8], 0, 1)
    with pytest.raises(ValueError, match="17 jobs; a launch takes at most 16"):
        run([small] * 17, e4m3fn_saturates=True)
    with pytest.raises(ValueError, match="no kernel turns float32 into dlpack"):
        run([(*small[:3], CODES[torch.float32], at, (7, 8), 0, 1)], e4m3fn_saturates=True)


def test_the_host_is_as_strict_about_alignment_as_a_gpu() -> None:
    memory = torch.zeros(64, dtype=torch.uint8)
    out = memory.data_ptr() + (-memory.data_ptr()) % 16 + 4
    job = (memory.data_ptr(), (16,), (1,), CODES[torch.uint8], out, CODES[torch.uint8], 0, 16)
    with pytest.raises(RuntimeError, match="a kernel stores to a misaligned address"):
        _core.testing.run_gather_cast([job], e4m3fn_saturates=True)


def test_torch_is_asked_what_becomes_of_too_large_values() -> None:
    """The reference that the other tests compare with must be this torch's, whichever it is."""
    largest = torch.tensor([1e9, float("inf")]).to(torch.float8_e4m3fn).float()
    assert largest.tolist() == [448.0, 448.0] if E4M3FN_SATURATES else largest.isnan().all()
