"""The same bytes are stored once: a tensor handed on unchanged shares its record, an edited one never does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import record

Step = Callable[[torch.Tensor], torch.Tensor]


class HandOn(nn.Module):
    """Hands its input from module to module; `between` runs after the first."""

    def __init__(self, between: Step | None = None, modules: int = 3) -> None:
        super().__init__()
        self.steps = nn.ModuleList(nn.Identity() for _ in range(modules))
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, step in enumerate(self.steps):
            x = step(x)
            if number == 0 and self.between is not None:
                x = self.between(x)
        return x


def run(model: nn.Module, x: Any, **options: Any) -> nntap.Cache:
    with nntap.capture(model, **options) as cache:
        model(x)
    return cache


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.float64, torch.bfloat16], ids=str)
def test_modules_that_hand_a_tensor_on_share_one_record(dtype: torch.dtype | None) -> None:
    x = torch.randn(64, 65).t()
    cache = run(HandOn(), x, dtype=dtype)
    outputs = [cache[path].output for path in ("steps.0", "steps.1", "steps.2", "")]
    assert all(output is outputs[0] for output in outputs)
    assert torch.equal(outputs[0], x.to(dtype))
    stats, nbytes = cache.stats, x.numel() * outputs[0].itemsize
    assert (stats.records, stats.shared) == (4, 3)
    assert (stats.bytes_recorded, stats.bytes_moved, stats.bytes_shared) == (4 * nbytes, nbytes, 3 * nbytes)


def test_an_output_and_the_next_module_s_input_share_one_record() -> None:
    cache = run(HandOn(), torch.randn(3, 4), include_inputs=True)
    assert cache["steps.0"].output is cache["steps.1"].input
    assert cache[""].input is cache[""].output
    assert cache.stats.shared == 7


def test_dropout_in_eval_mode_and_a_block_s_last_child_share() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.LayerNorm(4)).eval()
    model = nn.Sequential(block, nn.Identity())
    cache = run(model, torch.randn(2, 4))
    assert cache["0.1"].output is cache["0.0"].output
    assert cache["0"].output is cache["0.2"].output is cache["1"].output is cache[""].output
    assert cache.stats.shared == 4


def test_used_memory_grows_by_one_record_for_all_that_share() -> None:
    before = nntap.pool_stats()["used_bytes"]
    cache = run(HandOn(modules=20), torch.zeros(1000, 16))
    assert nntap.pool_stats()["used_bytes"] - before == 64_000
    del cache
    assert nntap.pool_stats()["used_bytes"] == before


def edit_by_operation(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1)


def edit_by_data(x: torch.Tensor) -> torch.Tensor:
    x.data.add_(1)  # no version counter sees this
    return x


def edit_by_numpy(x: torch.Tensor) -> torch.Tensor:
    array = x.numpy()
    array += 1
    return x


def edit_by_dlpack(x: torch.Tensor) -> torch.Tensor:
    torch.from_dlpack(x).add_(1)
    return x


def edit_by_detached_alias(x: torch.Tensor) -> torch.Tensor:
    x.detach()[0, 0] += 1
    return x


def edit_the_last_element(x: torch.Tensor) -> torch.Tensor:
    x[-1, -1] += 1
    return x


EDITS = [
    *(edit_by_operation, edit_by_data, edit_by_numpy),
    *(edit_by_dlpack, edit_by_detached_alias, edit_the_last_element),
]


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_between_two_modules_is_not_shared(edit: Step, strided: bool, dtype: torch.dtype | None) -> None:
    base = torch.zeros(600, 3)
    x = base.t() if strided else base
    before, after = x.clone(), edit(x.clone())
    cache = run(HandOn(edit), x, dtype=dtype)
    assert torch.equal(cache["steps.0"].output, before.to(dtype))
    assert torch.equal(cache["steps.1"].output, after.to(dtype))
    assert cache["steps.1"].output is cache["steps.2"].output
    assert cache.stats.shared == 2


def test_an_edit_that_a_cast_rounds_away_shares_the_cast_record() -> None:
    x = torch.ones(8)
    cache = run(HandOn(lambda y: y.add_(1e-6)), x, dtype=torch.bfloat16)
    assert cache["steps.1"].output.tolist() == [1.0] * 8
    assert cache.stats.shared == 3


def test_a_change_of_the_sign_of_zero_is_not_shared() -> None:
    cache = run(HandOn(lambda y: y.neg_()), torch.zeros(4))
    assert not cache["steps.0"].output.signbit().any()
    assert cache["steps.1"].output.signbit().all()


def test_nans_that_stay_the_same_are_shared() -> None:
    cache = run(HandOn(), torch.full((4,), float("nan")))
    assert cache.stats.shared == 3


def test_other_shapes_strides_and_dtypes_of_the_same_memory_are_not_shared() -> None:
    x = torch.arange(16, dtype=torch.int32).view(4, 4)
    for change in (torch.t, lambda y: y.view(2, 8), lambda y: y.view(torch.float32), lambda y: y[:2]):
        cache = run(HandOn(change, modules=2), x)
        assert torch.equal(cache["steps.1"].output, change(x))
        assert cache["steps.0"].output is not cache["steps.1"].output
        assert torch.equal(cache["steps.0"].output, x)


def test_a_new_tensor_at_an_address_used_before_is_not_taken_for_the_old_one() -> None:
    memory = torch.zeros(32)

    def other_values_in_the_same_place(_: torch.Tensor) -> torch.Tensor:
        memory.fill_(7)
        return torch.from_dlpack(memory)

    cache = run(HandOn(other_values_in_the_same_place), memory)
    assert cache["steps.0"].output.tolist() == [0.0] * 32
    assert cache["steps.1"].output.tolist() == [7.0] * 32


def test_a_slice_recorded_in_between_does_not_end_the_sharing() -> None:
    # Poolers do this: they take the first position of what the encoder gave back.
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.pooler = nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.encoder(x)
            self.pooler(x[:, 0])
            return x

    cache = run(Pooled(), torch.randn(2, 3, 4))
    assert cache["encoder"].output is cache[""].output
    assert cache.stats.shared == 1


def test_sharing_ends_with_the_capture() -> None:
    model, x = HandOn(modules=1), torch.zeros(4)
    first, second = run(model, x), run(model, x)
    assert first[""].output is not second[""].output
    second[""].output.add_(1)
    assert first[""].output.tolist() == [0.0] * 4


def test_nested_captures_do_not_share_records() -> None:
    model, x = HandOn(modules=1), torch.zeros(4)
    with nntap.capture(model) as outer, nntap.capture(model) as inner:
        model(x)
    assert outer[""].output is not inner[""].output
    assert torch.equal(outer[""].output, inner[""].output)


def test_several_calls_with_the_same_tensor_share() -> None:
    model, x = nn.Identity(), torch.zeros(4)
    with nntap.capture(model) as cache:
        model(x)
        model(x)
        x.add_(1)
        model(x)
    first, second, third = cache[""].output
    assert first is second
    assert (first.tolist(), third.tolist()) == ([0.0] * 4, [1.0] * 4)


def test_an_edited_record_is_not_handed_out_for_the_next_module() -> None:
    x = torch.zeros(4)

    def spoil_the_record(y: torch.Tensor) -> torch.Tensor:
        cache["steps.0"].output.fill_(9)
        return y

    model = HandOn(spoil_the_record)
    with nntap.capture(model) as cache:
        model(x)
    assert cache["steps.1"].output.tolist() == [0.0] * 4
    assert cache["steps.0"].output.tolist() == [9.0] * 4


def test_a_tensor_twice_in_one_nest_is_one_record() -> None:
    x = torch.randn(4)
    read, stats = record((x, {"again": x}))
    assert read[0] is read[1]["again"]
    assert (stats.records, stats.shared) == (2, 1)


def test_a_shared_record_read_at_different_times_is_the_same_tensor() -> None:
    model = HandOn()
    x = torch.randn(4)
    with nntap.capture(model) as cache:
        model.steps[0](x)
        early = cache["steps.0"].output
        model.steps[1](x)
    assert torch.equal(early, x)
    assert early is cache["steps.1"].output


def test_a_copy_that_ends_after_its_capture_keeps_no_memory() -> None:
    class LeavesMeanwhile(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.ones(8 << 20)  # copied without the GIL, which the main thread waits for to end the block

    model = LeavesMeanwhile()
    for _ in range(8):
        used = nntap.pool_stats()["used_bytes"]
        capture = nntap.capture(model)
        cache = capture.__enter__()
        worker = threading.Thread(target=model)
        worker.start()
        while nntap.pool_stats()["used_bytes"] == used and worker.is_alive():
            pass
        capture.__exit__(None, None, None)
        worker.join()
        if len(cache) == 0:  # the block ended first
            assert nntap.pool_stats()["used_bytes"] == used
        del cache
