"""On a real GPU: what the simulated driver proves by schedules, here with kernels that spin and a link that is busy."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from gathers import FLOATS
from gpt2 import gpt2, tokenizer
from helpers import Give

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

MIB = 1 << 20
SPIN = 50_000_000  # clock cycles: tens of milliseconds


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").to(dtype)


def recorded(make: Callable[[], Any], **options: Any) -> Any:
    model = Give(make)
    with nntap.capture(model, **options) as cache:
        model()
    return cache[""].output


def keep_link_busy() -> torch.Tensor:
    """Two GiB on their way to the host, on a stream of their own: other copies come later."""
    source = torch.empty(2048 * MIB, dtype=torch.uint8, device="cuda")
    target = torch.empty(2048 * MIB, dtype=torch.uint8, pin_memory=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        target.copy_(source, non_blocking=True)
    source.record_stream(stream)
    return target


def assert_same(record: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(record, expected.to(record.device), rtol=0, atol=0, equal_nan=True)


def test_the_gpu_is_recorded_on_by_the_core() -> None:
    assert nntap.build_info()["cuda"]["problem"] is None
    model = nn.Linear(8, 8, device="cuda")
    with nntap.capture(model) as cache:
        model(numbers(2, 8))
    assert cache.stats.slow == {}
    assert cache[""].output.device.type == "cpu"
    assert cache[""].output.is_pinned()


# ---- values ----


@pytest.mark.parametrize("to", FLOATS, ids=str)
@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value_is_cast_as_torch_casts_it(source: torch.dtype, to: torch.dtype) -> None:
    values = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).cuda().view(source)
    record = recorded(lambda: values, dtype=to)
    expected = values.to(to).cpu()
    nan = expected.float().isnan()
    assert torch.equal(record.float().isnan(), nan)
    assert torch.equal(record.float()[~nan], expected.float()[~nan])
    assert torch.equal(record.float()[~nan].signbit(), expected.float()[~nan].signbit())


@pytest.mark.parametrize("to", FLOATS, ids=str)
@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_random_values_are_cast_as_torch_casts_them(source: torch.dtype, to: torch.dtype) -> None:
    values = (torch.randn(1 << 20, device="cuda") * torch.logspace(-40, 38, 1 << 20, device="cuda")).to(source)
    record = recorded(lambda: values, dtype=to)
    assert_same(record.float(), values.to(to).cpu().float())


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda t: t.transpose(0, 2),
    "every other": lambda t: t[:, ::2],
    "expanded": lambda t: t[:, :1].expand(-1, 7, -1),
    "offset by one": lambda t: t.flatten()[1:],
    "channels last": lambda t: t[None].contiguous(memory_format=torch.channels_last),
    "a column": lambda t: t[..., 3],
    "empty": lambda t: t[:0],
    "one element": lambda t: t[0, 0, 0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64, torch.complex128], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("device", ["cpu", None])
def test_layouts_are_gathered(layout: str, dtype: torch.dtype, device: str | None) -> None:
    base = (torch.randn(33, 17, 65, device="cuda") * 50).to(dtype)
    tensor = LAYOUTS[layout](base)
    record = recorded(lambda: tensor, device=device)
    assert_same(record, tensor)
    assert record.stride() == tensor.clone().stride()


def test_nests_of_many_tensors_are_one_launch_each_and_right() -> None:
    tensors = [numbers(3, n) for n in range(1, 40)]
    record = recorded(lambda: {"hidden": tuple(tensors), "last": [tensors[0], None]})
    for got, tensor in zip(record["hidden"], tensors, strict=True):
        assert_same(got, tensor)
    assert record["last"][0] is record["hidden"][0]


# ---- order ----


def test_an_edit_in_place_behind_a_slow_producer_changes_nothing() -> None:
    tensor = numbers(256, 1024)
    before = tensor.cpu()

    def make() -> torch.Tensor:
        torch.cuda._sleep(SPIN)
        return tensor.mul_(2)

    model = Give(make)
    with nntap.capture(model) as cache:
        model()
        tensor.fill_(7)
        tensor.data.add_(1)
    assert_same(cache[""].output, before * 2)


def test_a_reader_waits_for_a_copy_behind_a_busy_link() -> None:
    tensors = [numbers(1 << 18) for _ in range(64)]
    expected = [tensor.cpu() for tensor in tensors]
    torch.cuda.synchronize()
    held = keep_link_busy()
    model = nn.ModuleList(Give(lambda tensor=tensor: tensor) for tensor in tensors)
    with nntap.capture(model) as cache:
        for module, tensor in zip(model, tensors, strict=True):
            module()
            tensor.zero_()
    for number, value in enumerate(expected):
        assert_same(cache[str(number)].output, value)
    del held


def test_memory_that_the_model_frees_at_once_may_be_used_again() -> None:
    values: list[float] = []

    def make() -> torch.Tensor:
        torch.cuda._sleep(SPIN // 100)
        values.append(float(len(values)))
        return torch.full((1 << 18,), values[-1], device="cuda")  # freed by the caller, then allocated again

    model = Give(make)
    with nntap.capture(model) as cache:
        for _ in range(200):
            model()
    for step, value in zip(cache[""], values, strict=True):
        assert bool((step.output == value).all())


def test_thousands_of_small_records_are_outstanding_at_once() -> None:
    tensors = numbers(5000, 37)
    model = Give(lambda: None)
    with nntap.capture(model) as cache:
        torch.cuda._sleep(SPIN)
        for row in tensors:
            model.make = lambda row=row: row
            model()
    assert_same(torch.stack([step.output for step in cache[""]]), tensors)


def test_streams_may_be_switched_between_modules() -> None:
    streams = [torch.cuda.current_stream(), torch.cuda.Stream(), torch.cuda.Stream()]
    model = Give(lambda: None)
    values = [torch.zeros(1 << 16, device="cuda") for _ in range(60)]
    torch.cuda.synchronize()
    with nntap.capture(model) as cache:
        for number, tensor in enumerate(values):
            with torch.cuda.stream(streams[number % 3]):
                torch.cuda._sleep(SPIN // 200)
                model.make = lambda tensor=tensor, number=number: tensor.add_(number)
                model()
                tensor.fill_(-1)
    assert [float(step.output[0]) for step in cache[""]] == list(range(60))
    assert torch.cuda.current_stream() == streams[0]


def test_a_record_that_the_user_is_still_copying_from_is_not_used_again() -> None:
    shape = (4 * MIB,)
    for value in range(30):
        record = recorded(lambda value=value: torch.full(shape, float(value), device="cuda"))
        target = torch.empty(shape, device="cuda")
        torch.cuda._sleep(SPIN // 10)
        target.copy_(record, non_blocking=True)
        del record
        gc.collect()
        again = recorded(lambda: torch.full(shape, -1.0, device="cuda"))
        assert bool((target == value).all())
        del again


def test_a_record_on_the_device_is_a_snapshot_in_stream_order() -> None:
    tensor = numbers(1024, 1024)
    expected = tensor.cpu().half()
    torch.cuda._sleep(SPIN)
    record = recorded(lambda: tensor, device=None, dtype="float16")
    tensor.zero_()
    assert record.device == tensor.device
    assert_same(record.cpu(), expected)


# ---- limits ----


@pytest.fixture
def limits() -> Any:
    before = nntap.pool_stats()
    yield nntap.set_limits
    nntap.set_limits(
        pinned_bytes=before["pinned"]["limit_bytes"], device_bytes=before["device_limit_bytes"], host_bytes=None
    )


def test_one_tensor_larger_than_all_chunks(limits: Any) -> None:
    nntap.trim()
    limits(device_bytes=64 * MIB)
    tensor = torch.arange(80 * MIB, device="cuda", dtype=torch.int32)
    record = recorded(lambda: tensor)
    assert_same(record, tensor)
    assert nntap.pool_stats()["devices"][0]["device_bytes"] <= 64 * MIB


def test_a_lower_limit_holds_for_what_has_landed(limits: Any) -> None:
    tensors = [torch.full((4 * MIB,), float(n), device="cuda") for n in range(24)]  # 384 MiB
    model = nn.ModuleList(Give(lambda tensor=tensor: tensor) for tensor in tensors)
    for limit in (256 * MIB, 64 * MIB, 8 * MIB, 256 * MIB):
        limits(device_bytes=limit)
        with nntap.capture(model) as cache:
            for module in model:
                module()
        assert [float(cache[str(n)].output[-1]) for n in range(24)] == list(range(24))
        assert nntap.pool_stats()["devices"][0]["device_bytes"] <= limit
        assert cache.stats.slow == {}


def test_past_the_pinned_limit_records_are_pageable_and_right(limits: Any) -> None:
    gc.collect()
    nntap.trim()
    limits(pinned_bytes=max(64 * MIB, nntap.pool_stats()["pinned"]["reserved_bytes"]))
    tensors = [torch.full((8 * MIB,), float(n), device="cuda") for n in range(24)]  # 768 MiB
    model = nn.ModuleList(Give(lambda tensor=tensor: tensor) for tensor in tensors)
    with nntap.capture(model) as cache:
        for module in model:
            module()
    for number in range(24):
        assert bool((cache[str(number)].output == number).all())
    assert not cache["23"].output.is_pinned()


def test_where_the_device_is_full_torch_records() -> None:
    nntap.trim()
    torch.cuda.empty_cache()
    tensor = numbers(1024)
    total = torch.cuda.get_device_properties(0).total_memory
    used = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((used + 100_000) / total)
    try:
        model = Give(lambda: tensor)
        with nntap.capture(model) as cache:
            model()
        assert cache.stats.slow == {"no device memory left": 1} or nntap.pool_stats()["devices"][0]["device_bytes"] > 0
        assert_same(cache[""].output, tensor)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        nntap.trim()  # also forgets that there was no room


def test_memory_comes_back() -> None:
    model = nn.Sequential(*[nn.Linear(512, 512) for _ in range(8)]).cuda()
    x = numbers(64, 512)
    gc.collect()
    nntap.trim()
    nntap.reserve(256 * MIB)  # so that nothing is pinned ahead of need meanwhile
    used = nntap.pool_stats()["pinned"]["used_bytes"]

    def run() -> tuple[int, int]:
        with nntap.capture(model) as cache:
            model(x)
        assert cache["7"].output.shape == (64, 512)
        del cache
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), nntap.pool_stats()["pinned"]["reserved_bytes"]

    for _ in range(3):
        run()
    third = run()
    for _ in range(300):
        last = run()
    assert last == third
    gc.collect()
    nntap.trim()
    assert nntap.pool_stats()["pinned"]["used_bytes"] <= used


def test_a_cuda_graph_that_is_being_captured_is_refused_and_left_whole() -> None:
    model = nn.Linear(16, 16, device="cuda")
    x = numbers(4, 16)
    model(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), nntap.capture(model), torch.cuda.graph(graph):
        with pytest.raises(nntap.CudaError, match="CUDA graph"):
            model(x)
        y = nn.functional.linear(x, model.weight, model.bias)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(y.cpu(), nn.functional.linear(x, model.weight, model.bias).detach().cpu())


# ---- real models ----


def test_every_module_of_a_gpt2_is_what_hooks_clone() -> None:
    model = gpt2().cuda()
    tokens = torch.arange(40, device="cuda")[None] % model.config.vocab_size
    clones: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                clones[name] = first.clone()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    with torch.no_grad(), nntap.capture(model) as cache:
        model(tokens)
    for handle in handles:
        handle.remove()
    assert len(clones) > 20
    for name, expected in clones.items():
        output = cache[name].output
        assert_same(output[0] if isinstance(output, tuple) else output, expected)
    assert cache.stats.slow == {}


def test_nnsight_on_the_gpu_with_interventions_and_invokes() -> None:
    nnsight = pytest.importorskip("nnsight")
    with nntap.installed():
        model = nnsight.LanguageModel(gpt2(layers=2).cuda(), tokenizer=tokenizer())
        with model.trace() as tracer:
            with tracer.invoke("The Eiffel Tower is in"):
                first = tracer.cache(modules=[model.transformer.h[1]])
                model.transformer.h[1].output[:] = 0
            with tracer.invoke("Madison Square Garden is in"):
                second = tracer.cache(modules=[model.transformer.h[1]], dtype=torch.float16)
        assert bool((first["model.transformer.h.1"].output == 0).all())
        assert second["model.transformer.h.1"].output.dtype == torch.float16
        assert bool((second["model.transformer.h.1"].output != 0).any())
        assert first["model.transformer.h.1"].output.device.type == "cpu"
