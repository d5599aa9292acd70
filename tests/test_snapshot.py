"""A record is what the module gave back at that moment: any nest, dtype and layout, whatever is done afterwards."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

import nntap
from helpers import (
    INT_OF_SIZE,
    Give,
    assert_cast_is,
    assert_nest_is,
    assert_storage_is_exact,
    assert_tensor_is,
    clone_of,
    record,
    structure_of,
    tensors_in,
)
from strategies import (
    DTYPES,
    EDITS,
    Attributed,
    Frozen,
    FrozenSlotted,
    Layout,
    Output,
    Slotted,
    Source,
    layouts,
    make_source,
    nests,
    sources,
)

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # torch says so once

# ---- one tensor ----


@given(sources(), st.sampled_from(sorted(EDITS)))
@settings(max_examples=400)
def test_a_record_is_a_clone_whatever_is_edited_afterwards(source: Source, way: str) -> None:
    expected = clone_of(source.tensor)
    edit = EDITS[way](source)
    model = Give(lambda: source.tensor)
    with nntap.capture(model) as cache:
        model()
        edit()
    assert_tensor_is(cache[""].output, expected)


@given(sources())
def test_an_edit_after_the_record_was_read_changes_nothing_either(source: Source) -> None:
    expected = clone_of(source.tensor)
    read, _ = record(source.tensor)
    source.memory.bitwise_xor_(1)
    assert_tensor_is(read, expected)


@given(sources())
def test_editing_a_record_leaves_the_model_s_tensor_alone(source: Source) -> None:
    before = source.memory.clone()
    read, _ = record(source.tensor)
    read.untyped_storage().fill_(1)
    assert torch.equal(source.memory, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_recorded_bit_for_bit(dtype: torch.dtype) -> None:
    source = make_source(dtype, Layout((3, 4, 5), (20, 1, 4), 2), seed=1)
    expected = clone_of(source.tensor)
    read, _ = record(source.tensor)
    source.memory.zero_()
    assert_tensor_is(read, expected)


def standard_dtypes() -> list[torch.dtype]:
    """Those that numpy and most models know; all of them go the fast way."""
    ints = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    floats = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    return [torch.bool, *ints, *floats, torch.complex64, torch.complex128]


@given(sources(dtypes=standard_dtypes()))
def test_a_record_of_the_fast_way_has_a_storage_of_exactly_its_size(source: Source) -> None:
    read, stats = record(source.tensor)
    if source.tensor.dim() <= 8:
        assert stats.slow == {}
        assert_storage_is_exact(read)
    else:
        assert stats.slow == {"more than 8 dimensions": 1}


@given(layouts(), st.integers(0, 99))
@settings(max_examples=400)
def test_strides_are_those_of_clone(layout: Layout, seed: int) -> None:
    source = make_source(torch.int16, layout, seed)
    read, _ = record(source.tensor)
    assert read.stride() == source.tensor.clone().stride()


def test_a_large_tensor_is_recorded_bit_for_bit() -> None:
    tensor = torch.randn(6, 512, 1024)  # 12 MiB: copied with other threads let in
    for view in (tensor, tensor.transpose(0, 2), tensor[:, ::2], tensor.expand(2, -1, -1, -1)):
        expected = view.clone()
        read, _ = record(view)
        assert_tensor_is(read, expected)


def test_a_parameter_is_recorded_as_a_plain_tensor() -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    expected = parameter.detach().clone()
    read, stats = record(parameter)
    with torch.no_grad():
        parameter.zero_()
    assert_tensor_is(read, expected)
    assert stats.slow == {}


def test_a_record_of_a_tensor_with_a_graph_is_detached() -> None:
    tensor = torch.randn(3, requires_grad=True) * 2
    read, _ = record(tensor)
    assert_tensor_is(read, tensor.detach())
    assert read.grad_fn is None


# ---- nests ----


@given(nests(), st.sampled_from(sorted(EDITS)))
@settings(max_examples=300)
def test_nests_keep_their_types_and_every_tensor_is_a_clone(nest: tuple[Any, list[Source]], way: str) -> None:
    value, found = nest
    structure, clones = structure_of(value), [clone_of(tensor) for tensor in tensors_in(value)]
    edits = [EDITS[way](source) for source in found]
    model = Give(lambda: value)
    with nntap.capture(model) as cache:
        model()
        for edit in edits:
            edit()
    assert_nest_is(cache[""].output, structure, clones)


@given(nests())
def test_nests_among_the_inputs_are_recorded_like_outputs(nest: tuple[Any, list[Source]]) -> None:
    value, found = nest
    structure, clones = structure_of(value), [clone_of(tensor) for tensor in tensors_in(value)]
    model = Give(lambda: None)
    with nntap.capture(model, include_inputs=True) as cache:
        model(value, named=value)
        for source in found:
            source.memory.bitwise_xor_(1)
    args, kwargs = cache[""].inputs
    assert list(kwargs) == ["named"]
    assert_nest_is(args, (tuple, None, None, [structure]), clones)
    assert_nest_is(kwargs["named"], structure, clones)


def edit_containers(value: Any) -> None:
    """Takes away what the mutable containers of a nest hold."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    for item in list(items):
        edit_containers(item)
    if isinstance(value, (Frozen, FrozenSlotted)):
        edit_containers(value.value)
    if isinstance(value, Slotted):
        edit_containers(value.value)
        value.value, value.others = "gone", ["gone"]
    elif isinstance(value, Output):
        value["first"] = "gone"
    elif isinstance(value, dict):
        value.clear()
    elif isinstance(value, list):
        value.append("more")
    elif isinstance(value, set):
        value.clear()


@given(nests())
def test_emptying_the_containers_afterwards_changes_nothing(nest: tuple[Any, list[Source]]) -> None:
    value, _ = nest
    structure, clones = structure_of(value), [clone_of(tensor) for tensor in tensors_in(value)]
    model = Give(lambda: value)
    with nntap.capture(model) as cache:
        model()
        edit_containers(value)
    assert_nest_is(cache[""].output, structure, clones)


def test_a_transformers_output_keeps_its_fields() -> None:
    hidden = torch.randn(2, 3)
    value = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden, hidden_states=(hidden, hidden + 1))
    read, _ = record(value)
    hidden.zero_()
    assert type(read) is type(value)
    assert list(read.keys()) == ["last_hidden_state", "hidden_states"]
    assert read.past_key_values is None
    assert read.last_hidden_state is read["last_hidden_state"] is read[0]
    assert torch.equal(read.hidden_states[0], read.last_hidden_state)
    assert read.last_hidden_state.abs().sum() > 0


def test_an_attribute_of_a_transformers_output_that_is_no_item_is_recorded_too() -> None:
    value = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=torch.ones(2))
    vars(value)["extra"] = (torch.ones(3), "note")
    read, _ = record(value)
    value.last_hidden_state.zero_()
    value.extra[0].zero_()
    assert vars(read).keys() == vars(value).keys()
    assert list(read) == ["last_hidden_state"]
    assert (read.last_hidden_state == 1).all()
    assert (read.extra[0] == 1).all()
    assert read.extra[1] == "note"


def test_a_packed_sequence_keeps_its_type() -> None:
    padded = torch.randn(2, 4, 3)
    packed = pack_padded_sequence(padded, [2, 4], batch_first=True, enforce_sorted=False)
    read, _ = record(packed)
    packed.data.zero_()
    assert type(read) is PackedSequence
    back, lengths = pad_packed_sequence(read, batch_first=True)
    padded[0, 2:] = 0
    assert torch.equal(back, padded)
    assert lengths.tolist() == [2, 4]


def test_an_lstm_on_a_packed_sequence_runs_and_is_recorded() -> None:
    lstm = torch.nn.LSTM(3, 5, batch_first=True)
    packed = pack_padded_sequence(torch.randn(2, 4, 3), [4, 2], batch_first=True)
    with nntap.capture(lstm, include_inputs=True) as cache:
        out, (hidden, cell) = lstm(packed)
    recorded, (recorded_hidden, recorded_cell) = cache[""].output
    assert torch.equal(recorded.data, out.data)
    assert torch.equal(recorded_hidden, hidden)
    assert torch.equal(recorded_cell, cell)
    assert torch.equal(cache[""].input.data, packed.data)


def test_a_dict_subclass_keeps_its_type_and_attributes() -> None:
    value = Attributed(a=torch.ones(2))
    value.note = "kept"
    read, _ = record(value)
    assert type(read) is Attributed
    assert read.note == "kept"
    assert read is not value


def test_objects_that_are_no_containers_are_kept_by_reference() -> None:
    class Thing:
        pass

    thing = Thing()
    read, _ = record((thing, [thing]))
    assert read[0] is thing
    assert read[1][0] is thing


def test_a_view_and_its_base_in_one_nest_are_each_right() -> None:
    base = torch.arange(12.0).view(3, 4)
    value = (base, base[1], base.t(), base.view(2, 6), base[:, :1], base)
    clones = [tensor.clone() for tensor in value]
    read, stats = record(value)
    base.zero_()
    for tensor, clone in zip(read, clones, strict=True):
        assert_tensor_is(tensor, clone)
    assert stats.records == 6


def test_a_nest_deeper_than_the_recursion_limit_is_an_error_and_not_a_crash() -> None:
    value: Any = torch.ones(1)
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        record(value)
    while isinstance(value, list):
        value = value.pop()  # freed one by one; Python itself may overflow on so deep a list


# ---- casts the core makes itself ----

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
PAIRS = [(source, target) for source in FLOATS for target in FLOATS]
all_pairs = pytest.mark.parametrize(("source", "target"), PAIRS, ids=lambda dtype: str(dtype).removeprefix("torch."))


def every_16_bit_pattern(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(dtype)


def neighbours(values: torch.Tensor) -> torch.Tensor:
    """The values and the floats just below and above each."""
    bits = values.view(INT_OF_SIZE[values.itemsize])
    return torch.cat([bits - 1, bits, bits + 1]).view(values.dtype)


def boundaries(dtype: torch.dtype) -> torch.Tensor:
    """What rounds, overflows or underflows on the way to a narrower type, and what lies just beside it."""
    found = []
    for narrow in FLOATS[1:]:
        if torch.finfo(narrow).bits >= torch.finfo(dtype).bits:
            continue
        if narrow == torch.float32:
            exact = torch.randint(-(2**31), 2**31, (50_000,)).to(torch.int32).view(torch.float32).to(dtype)
        else:
            exact = every_16_bit_pattern(narrow).to(dtype)
        exact = exact[exact.isfinite()].sort().values
        found += [exact, (exact[1:] + exact[:-1]) / 2]  # the middles are the ties
    ints = INT_OF_SIZE[torch.empty(0, dtype=dtype).itemsize]
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan")], dtype=dtype)
    subnormal = torch.arange(1, 3000).to(ints).view(dtype)
    largest = torch.tensor([torch.finfo(kind).max for kind in FLOATS], dtype=torch.float64).to(dtype)
    smallest = torch.tensor([torch.finfo(kind).tiny for kind in FLOATS], dtype=torch.float64).to(dtype)
    return neighbours(torch.cat([*found, special, subnormal, -subnormal, largest, -largest, smallest]))


def random_bits(dtype: torch.dtype, count: int) -> torch.Tensor:
    itemsize = torch.empty(0, dtype=dtype).itemsize
    return torch.randint(0, 256, (count * itemsize,), dtype=torch.uint8).view(dtype)


@all_pairs
def test_casts_of_every_boundary_equal_torch(source: torch.dtype, target: torch.dtype) -> None:
    if torch.finfo(source).bits == 16:
        values = every_16_bit_pattern(source)
    else:
        values = torch.cat([boundaries(source), random_bits(source, 300_000)])
    read, stats = record(values, dtype=target)
    assert stats.slow == {}
    if source == target:
        assert_tensor_is(read, values)
    else:
        assert_cast_is(read, values.to(target))


@all_pairs
def test_casts_of_strided_tensors_equal_torch(source: torch.dtype, target: torch.dtype) -> None:
    values = random_bits(source, 24 * 60 * 40).view(24, 60, 40)
    views = [
        values.transpose(0, 2),
        values.permute(1, 2, 0),
        values[::2, 1:, ::3],
        values[:, :, :1].expand(-1, -1, 7),
        values.as_strided((50, 90), (7, 3), 5),
    ]
    for view in views:
        read, stats = record(view, dtype=target)
        assert stats.slow == {}
        assert_cast_is(read, view.to(target, copy=True))
        assert_storage_is_exact(read)


@all_pairs
def test_casts_of_few_elements_at_any_offset_equal_torch(source: torch.dtype, target: torch.dtype) -> None:
    values = random_bits(source, 4000)
    for count in range(40):
        for view in (values[count : 2 * count], values[1::3][:count], values[3 : 3 + 2 * count : 2]):
            read, _ = record(view, dtype=target)
            assert_cast_is(read, view.to(target, copy=True))


@given(sources(dtypes=FLOATS), st.sampled_from(FLOATS), st.sampled_from(sorted(EDITS)))
@settings(max_examples=200)
def test_a_cast_record_is_a_snapshot_too(source: Source, target: torch.dtype, way: str) -> None:
    expected = source.tensor.to(target, copy=True)
    edit = EDITS[way](source)
    model = Give(lambda: source.tensor)
    with nntap.capture(model, dtype=target) as cache:
        model()
        edit()
    assert_cast_is(cache[""].output, expected)


# ---- casts left to torch ----

OTHERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
EIGHTS = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
EIGHTS += [torch.float8_e8m0fnu] if hasattr(torch, "float8_e8m0fnu") else []  # from torch 2.7 on
TARGETS = [*FLOATS, *EIGHTS, *OTHERS, torch.uint64, torch.complex32, torch.complex64, torch.complex128]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("source", TARGETS, ids=str)
def test_other_casts_are_those_of_torch(source: torch.dtype, target: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from complex to real numbers: torch warns that it drops a part
        values = torch.linspace(0, 100, 60).view(5, 12).t().to(source)
        expected = values.to(target, copy=True)
        read, stats = record(values, dtype=target)
    assert read.dtype == target
    assert_tensor_is(read, expected)
    by_core = source == target or {source, target} <= set(FLOATS)
    assert stats.slow == ({} if by_core else {"cast left to torch": 1})


def test_a_cast_of_ints_under_a_dtype_is_a_snapshot() -> None:
    values = torch.arange(6)
    read, _ = record(values, dtype=torch.float16)
    values.zero_()
    assert read.tolist() == [0, 1, 2, 3, 4, 5]


def test_copies_of_a_nest_are_independent_of_the_records() -> None:
    read, _ = record({"a": torch.ones(2)})
    twin = copy.deepcopy(read)
    twin["a"].zero_()
    assert read["a"].tolist() == [1, 1]
