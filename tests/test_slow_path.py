"""What the core leaves to torch: each kind of tensor is recorded right, and counted under its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

import nntap
from helpers import Give, assert_script_runs, assert_tensor_is, record
from nntap import _core

NO_DLPACK = "layout or dtype DLPack cannot carry"
SUBCLASS = "tensor subclass"

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:torch.quantize"),
    pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor"),
]


# ---- sparse ----

SPARSE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": lambda t: t.to_sparse(),
    "csr": lambda t: t.to_sparse_csr(),
    "csc": lambda t: t.to_sparse_csc(),
    "bsr": lambda t: t.to_sparse_bsr((2, 2)),
}


@pytest.mark.parametrize("layout", SPARSE)
@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_sparse_tensors_keep_their_layout(layout: str, dtype: torch.dtype | None) -> None:
    dense = torch.tensor([[0.0, 1.5, 0.0, 0.0], [2.5, 0.0, 0.0, 3.5]])
    sparse = SPARSE[layout](dense)
    read, stats = record(sparse, dtype=dtype)
    values = sparse._values() if layout == "coo" else sparse.values()
    values.zero_()
    assert read.layout == sparse.layout
    assert read.dtype == (dtype or torch.float32)
    assert torch.equal(read.to_dense().float(), dense)
    assert stats.slow == {NO_DLPACK: 1}
    assert stats.records == 0


# ---- quantised ----


def quantised() -> dict[str, torch.Tensor]:
    values = torch.linspace(-2, 2, 12).view(3, 4)
    scales, points = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2])
    return {
        "qint8": torch.quantize_per_tensor(values, 0.1, 3, torch.qint8),
        "quint8": torch.quantize_per_tensor(values, 0.1, 3, torch.quint8),
        "qint32": torch.quantize_per_tensor(values, 0.1, 3, torch.qint32),
        "per channel": torch.quantize_per_channel(values, scales, points, 0, torch.qint8),
    }


@pytest.mark.parametrize("kind", ["qint8", "quint8", "qint32", "per channel"])
def test_quantised_tensors_keep_their_bits_and_scales(kind: str) -> None:
    tensor = quantised()[kind]
    expected = tensor.clone()
    read, stats = record(tensor)
    tensor.copy_(torch.ones(3, 4))
    assert_tensor_is(read, expected)
    assert torch.equal(read.dequantize(), expected.dequantize())
    assert stats.slow == {NO_DLPACK: 1}


@pytest.mark.parametrize("kind", ["qint8", "quint8", "qint32", "per channel"])
def test_quantised_tensors_are_dequantised_under_a_dtype(kind: str) -> None:
    tensor = quantised()[kind]
    read, stats = record(tensor, dtype="float16")
    assert_tensor_is(read, tensor.dequantize().to(torch.float16))
    assert stats.slow == {NO_DLPACK: 1}


# ---- nested ----


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors_keep_their_parts(layout: torch.layout, dtype: torch.dtype | None) -> None:
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    read, stats = record(nested, dtype=dtype)
    nested.mul_(0)
    assert read.is_nested
    assert read.layout == layout
    assert read.dtype == (dtype or torch.float32)
    for part, recorded in zip(parts, read.unbind(), strict=True):
        assert torch.equal(recorded, part.to(read.dtype))
    assert stats.slow == {SUBCLASS if layout == torch.jagged else NO_DLPACK: 1}


# ---- bits that DLPack does not carry ----


@pytest.mark.parametrize("dtype", [None, torch.complex128], ids=str)
def test_a_conjugate_view_is_recorded_with_its_values(dtype: torch.dtype | None) -> None:
    base = torch.randn(3, 4, dtype=torch.complex64)
    expected = base.conj().resolve_conj().clone()
    read, stats = record(base.conj(), dtype=dtype)
    base.zero_()
    assert torch.equal(read, expected.to(read.dtype))
    assert stats.slow == {"conjugate view": 1}


@pytest.mark.parametrize("dtype", [torch.complex32, torch.complex64, torch.complex128], ids=str)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_negative_view_is_recorded_with_its_values(dtype: torch.dtype) -> None:
    base = torch.randn(3, 4, dtype=torch.complex64).to(dtype)
    view = base.conj().imag
    assert view.is_neg()
    expected = view.resolve_neg().clone()
    read, stats = record(view)
    base.zero_()
    assert torch.equal(read, expected)
    assert stats.slow == {"negative view": 1}


FLOATS_AND_INTEGERS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FLOATS_AND_INTEGERS += [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]


@pytest.mark.parametrize("dtype", FLOATS_AND_INTEGERS, ids=str)
def test_the_negative_bit_counts_in_every_dtype(dtype: torch.dtype) -> None:
    # `conj().imag` of a bcomplex32, which newer torches have, is such a view of bfloat16.
    view = torch._neg_view(torch.arange(1, 4).to(dtype))
    expected = view.resolve_neg().clone()
    read, stats = record(view)
    assert torch.equal(read, expected)
    assert stats.slow == {"negative view": 1}


def test_a_zero_tensor_of_forward_mode_is_recorded_as_zeros() -> None:
    # It has a shape and no memory; reading its address is a crash, so this runs apart.
    script = """
        import torch, nntap
        from helpers import record
        read, stats = record(torch._efficientzerotensor((2, 3)))
        print(read.tolist(), sum(stats.slow.values()))
    """
    assert_script_runs(script, says="[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]] 1")


def test_a_functional_tensor_is_recorded_inside_functionalize() -> None:
    script = """
        import torch, nntap
        model = torch.nn.Linear(2, 2)
        x = torch.randn(3, 2)
        with nntap.capture(model) as cache:
            torch.func.functionalize(lambda y: model(y * 2) + 1)(x)
        print(torch.equal(cache[""].output, model(x * 2)), sum(cache.stats.slow.values()))
    """
    assert_script_runs(script, says="True 1")


def test_an_mkldnn_tensor_is_recorded() -> None:
    dense = torch.randn(3, 4)
    read, stats = record(dense.to_mkldnn())
    assert torch.equal(read.to_dense(), dense)
    assert stats.slow == {NO_DLPACK: 1}


def test_an_mkldnn_tensor_is_cast() -> None:
    dense = torch.randn(3, 4)
    read, _ = record(dense.to_mkldnn(), dtype="float16")
    assert torch.equal(read.to_dense(), dense.half())


# ---- subclasses ----


class Plain(torch.Tensor):
    """A subclass that adds nothing."""


class Wrapper(torch.Tensor):
    """Holds another tensor and no memory of its own."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(value: Any) -> Any:
            return value.inner if isinstance(value, Wrapper) else value

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        return tree_map(lambda value: Wrapper(value) if isinstance(value, torch.Tensor) else value, out)


def test_a_subclass_keeps_its_class() -> None:
    tensor = torch.randn(3).as_subclass(Plain)
    expected = tensor.as_subclass(torch.Tensor).clone()
    read, stats = record(tensor)
    tensor.zero_()
    assert type(read) is Plain
    assert torch.equal(read.as_subclass(torch.Tensor), expected)
    assert stats.slow == {SUBCLASS: 1}


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_a_wrapper_subclass_is_recorded_through_its_own_operations(dtype: torch.dtype | None) -> None:
    inner = torch.randn(3)
    expected = inner.clone().to(dtype)
    read, stats = record(Wrapper(inner), dtype=dtype)
    inner.zero_()
    assert type(read) is Wrapper
    assert torch.equal(read.inner, expected)
    assert stats.slow == {SUBCLASS: 1}


def test_a_parameter_and_a_buffer_go_the_fast_way() -> None:
    kinds = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), False)]
    kinds += [nn.Buffer(torch.ones(2))] if hasattr(nn, "Buffer") else []  # from torch 2.5 on
    for tensor in kinds:
        read, stats = record(tensor)
        assert_tensor_is(read, torch.ones(2))
        assert stats.slow == {}


def test_an_inference_tensor_is_recorded_and_never_confused_with_its_edit() -> None:
    with torch.inference_mode():
        tensor = torch.randn(3)  # has no version counter
        expected = tensor.clone()
        first, second = Give(lambda: tensor), Give(lambda: tensor)

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = first, second

            def forward(self) -> None:
                self.first()
                tensor.add_(1)
                self.second()

        model = Model()
        with nntap.capture(model) as cache:
            model()
    assert torch.equal(cache["first"].output, expected)
    assert torch.equal(cache["second"].output, expected + 1)
    assert cache.stats.slow == {}


def test_a_meta_tensor_keeps_its_shape_and_stays_meta() -> None:
    tensor = torch.empty_strided((3, 4), (1, 3), device="meta")
    for device in ("cpu", None):
        read, stats = record(tensor, device=device)
        assert (read.device.type, read.shape, read.stride()) == ("meta", (3, 4), (1, 3))
        assert stats.slow == {NO_DLPACK: 1}
    read, _ = record(tensor, dtype="float16")
    assert read.dtype == torch.float16


def test_a_fake_tensor_stays_fake() -> None:
    mode = FakeTensorMode()
    with mode:
        fake = torch.empty(3, 4)
        inside, stats = record(fake)
    assert stats.slow == {SUBCLASS: 1}
    outside, _ = record(fake, dtype="float16")
    assert isinstance(inside, FakeTensor)
    assert isinstance(outside, FakeTensor)
    assert (outside.shape, outside.dtype) == ((3, 4), torch.float16)


def test_a_real_tensor_in_a_fake_mode_is_cast_by_the_core() -> None:
    real = torch.ones(3)
    with FakeTensorMode():
        read, stats = record(real, dtype="float16")
    assert stats.slow == {}
    assert_tensor_is(read, torch.ones(3, dtype=torch.float16))


def test_a_capture_with_a_dtype_works_under_any_default_device() -> None:
    model = Give(torch.ones(2).clone)
    with torch.device("meta"), nntap.capture(model, dtype="float16") as cache:
        model()
    assert_tensor_is(cache[""].output, torch.ones(2, dtype=torch.float16))


# ---- functorch ----


def test_inside_vmap_a_record_holds_the_values_of_that_moment() -> None:
    inner = nn.Identity()
    seen = []

    def step(x: torch.Tensor) -> torch.Tensor:
        y = inner(x * 2)
        y.mul_(10)
        seen.append((cache[""].output + 0, y))
        return y - 9 * cache[""].output

    x = torch.arange(6.0).view(2, 3)
    with nntap.capture(inner) as cache:
        out = torch.vmap(step)(x)
    assert len(seen) == 1
    assert torch.equal(out, x * 20 - x * 18)
    assert cache.stats.slow == {NO_DLPACK: 1}


def test_inside_grad_a_record_is_a_snapshot() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(4, 3)
    before = model[0](x).detach().clone()
    with nntap.capture(model) as cache:
        gradient = torch.func.grad(lambda y: model(y).sum())(x)
    assert torch.equal(cache["0"].output, before)
    assert torch.equal(cache["1"].output, before.relu())
    assert gradient.shape == x.shape
    assert sum(cache.stats.slow.values()) == 3


def test_inside_jvp_a_record_is_the_primal() -> None:
    model = nn.Linear(3, 3)
    x = torch.randn(4, 3)
    with nntap.capture(model) as cache:
        torch.func.jvp(model, (x,), (torch.ones_like(x),))
    assert torch.equal(cache[""].output, model(x))


# ---- detach=False ----


def test_with_detach_false_a_backward_through_the_records_gives_the_right_gradients() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3, requires_grad=True)
    with nntap.capture(model, detach=False, include_inputs=True) as cache:
        model(x)
    (cache["1"].output.sum() + 2 * cache["2"].output.pow(2).sum() + cache["0"].input.sum()).backward()
    assert x.grad is not None
    got = [x.grad.clone(), *(p.grad.clone() for p in model.parameters())]
    x.grad = None
    model.zero_grad()
    hidden = model[1](model[0](x))
    (hidden.sum() + 2 * model[2](hidden).pow(2).sum() + x.sum()).backward()
    for one, other in zip(got, [x.grad, *(p.grad for p in model.parameters())], strict=True):
        assert torch.allclose(one, other)
    assert set(cache.stats.slow) == {"detach=False"}


def test_with_detach_false_a_record_is_still_a_snapshot() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    x = torch.randn(4, 3)
    before = model[0](x).detach().clone()
    with nntap.capture(model, detach=False, dtype="float64") as cache:
        model(x)
    assert torch.equal(cache["0"].output, before.double())
    assert cache["0"].output.grad_fn is not None
    cache["0"].output.sum().backward()
    assert torch.allclose(model[0].bias.grad, torch.full((3,), 4.0))


def test_with_detach_false_the_model_s_own_backward_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())
    x = torch.randn(4, 3)
    model(x).sum().backward()
    expected = model[0].weight.grad.clone()
    model.zero_grad()
    with nntap.capture(model, detach=False):
        out = model(x)
    out.sum().backward()
    assert torch.equal(model[0].weight.grad, expected)


# ---- devices ----


def test_a_target_device_without_a_fast_path_is_left_to_torch_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nntap.options._DLPACK_DEVICES", {})  # of those with one, this machine may have but the CPU
    read, stats = record(torch.ones(2, 3))
    assert read.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert stats.slow == {"target device cpu": 1}


# ---- several reasons in one cache ----


def test_each_reason_is_counted_apart_and_the_rest_goes_the_fast_way() -> None:
    complex_numbers = torch.randn(3, dtype=torch.complex64)
    value = (
        *(torch.ones(2), torch.eye(2).to_sparse(), torch.eye(3).to_sparse()),
        *(complex_numbers.conj(), torch.ones(2).as_subclass(Plain), torch.ones([1] * 9)),
    )
    _, stats = record(value)
    assert stats.slow == {NO_DLPACK: 2, "conjugate view": 1, SUBCLASS: 1, "more than 8 dimensions": 1}
    assert stats.records == 1


def test_a_slow_way_that_fails_raises_and_the_cache_keeps_what_came_before() -> None:
    class Unwilling(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise ValueError("this tensor cannot be copied")

    good, bad = Give(lambda: torch.ones(2)), Give(lambda: torch.ones(2).as_subclass(Unwilling))
    model = nn.ModuleDict({"good": good, "bad": bad})
    with nntap.capture(model) as cache:
        good()
        with pytest.raises(ValueError, match="cannot be copied"):
            bad()
    assert cache.keys() == ["good"]


# ---- DTensor ----


@pytest.mark.filterwarnings("ignore")
def test_a_dtensor_is_recorded_by_its_local_part() -> None:
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available():
        pytest.skip("this torch has no distributed package")
    script = """
        import os, warnings
        warnings.simplefilter("ignore")
        import torch, torch.distributed as dist
        from helpers import record
        from torch.distributed.device_mesh import init_device_mesh
        try:
            from torch.distributed.tensor import DTensor, Replicate, Shard
        except ImportError:  # before torch 2.5
            from torch.distributed._tensor import DTensor, Replicate, Shard
        from torch.testing._internal.distributed.fake_pg import FakeStore
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
        mesh = init_device_mesh("cpu", (1,))
        tensor = torch.randn(4, 3)
        for placement in (Shard(0), Replicate()):
            whole = DTensor.from_local(tensor.clone(), mesh, [placement])
            read, stats = record(whole)
            whole.to_local().zero_()
            assert type(read) is torch.Tensor and torch.equal(read, tensor) and not read.requires_grad
            assert stats.slow == {"tensor subclass": 1}, stats
        half, _ = record(DTensor.from_local(tensor, mesh, [Shard(0)]), dtype="float16")
        assert torch.equal(half, tensor.half())
        dist.destroy_process_group()
        print("done")
    """
    assert_script_runs(script, says="done")


# ---- where the core has no copy to ----


def test_a_record_for_another_device_than_the_tensors_own_is_torchs() -> None:
    asked: list[torch.Tensor] = []

    def slow(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(tensor)
        return tensor.clone()

    cuda = (2, 0)  # as DLPack numbers it
    recorder = _core.Recorder(1, slow, lambda value, walk: value, target=cuda)
    tensor = torch.ones(3)
    recorder.record(0, tensor)
    assert asked[0] is tensor
    assert torch.equal(recorder.read(0, 0, 0), tensor)
    assert recorder.stats()["slow"] == {"another target device": 1}
