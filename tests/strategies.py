"""Hypothesis strategies: tensors of every dtype in every layout, nests of them, and edits made afterwards."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from transformers.utils import ModelOutput

from helpers import tensors_in


def _dtypes() -> list[torch.dtype]:
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return sorted(found, key=str)


QUANTISED = [dtype for dtype in _dtypes() if str(dtype).startswith(("torch.qint", "torch.quint"))]
DTYPES = [dtype for dtype in _dtypes() if dtype not in QUANTISED]
"""Every torch dtype whose tensors are plain bytes."""


# ---- layouts ----


class Layout(NamedTuple):
    """Where a tensor's elements lie in its storage, in elements."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def storage_elements(self) -> int:
        if 0 in self.size:
            return self.offset
        return self.offset + 1 + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))


def dense_strides(size: tuple[int, ...], order: list[int] | None = None) -> tuple[int, ...]:
    """Strides that lay the dimensions out without gaps; the last one in `order` is the fastest."""
    strides = [0] * len(size)
    step = 1
    for dim in reversed(order if order is not None else list(range(len(size)))):
        strides[dim] = step
        step *= max(size[dim], 1)
    return tuple(strides)


def sizes(min_dims: int = 0, max_dims: int = 5, least: int = 1, most: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(least, most), min_size=min_dims, max_size=max_dims).map(tuple)


@st.composite
def _contiguous(draw: st.DrawFn) -> Layout:
    size = draw(sizes())
    return Layout(size, dense_strides(size), 0)


@st.composite
def _permuted(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=2))
    return Layout(size, dense_strides(size, list(draw(st.permutations(range(len(size)))))), 0)


@st.composite
def _sliced(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=1, max_dims=4))
    steps = [draw(st.integers(1, 3)) for _ in size]
    whole = tuple(n * step + draw(st.integers(0, 2)) for n, step in zip(size, steps, strict=True))
    strides = dense_strides(whole, list(draw(st.permutations(range(len(size))))))
    return Layout(size, tuple(a * b for a, b in zip(strides, steps, strict=True)), draw(st.integers(0, 3)))


@st.composite
def _expanded(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=1))
    strides = list(dense_strides(size, list(draw(st.permutations(range(len(size)))))))
    for dim in draw(st.sets(st.integers(0, len(size) - 1), min_size=1)):
        strides[dim] = 0
    return Layout(size, tuple(strides), draw(st.integers(0, 3)))


@st.composite
def _arbitrary(draw: st.DrawFn) -> Layout:
    """Overlapping rows, gaps, sizes of 1 with any stride, empty dimensions: whatever as_strided takes."""
    size = draw(sizes(min_dims=1, least=0, most=4))
    return Layout(size, tuple(draw(st.integers(0, 9)) for _ in size), draw(st.integers(0, 5)))


@st.composite
def _channels_last(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=4, max_dims=5, most=4))
    return Layout(size, dense_strides(size, [0, *range(2, len(size)), 1]), 0)


@st.composite
def _odd_ones(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=1, max_dims=5, most=3))
    strides = [draw(st.integers(0, 40)) if n == 1 else step for n, step in zip(size, dense_strides(size), strict=True)]
    return Layout(size, tuple(strides), 0)


@st.composite
def _empty(draw: st.DrawFn) -> Layout:
    size = list(draw(sizes(min_dims=1, max_dims=4, least=0)))
    size[draw(st.integers(0, len(size) - 1))] = 0
    order = list(draw(st.permutations(range(len(size)))))
    return Layout(tuple(size), dense_strides(tuple(size), order), draw(st.integers(0, 3)))


@st.composite
def _many_dims(draw: st.DrawFn) -> Layout:
    size = draw(sizes(min_dims=7, max_dims=12, most=2))
    return Layout(size, dense_strides(size, list(draw(st.permutations(range(len(size)))))), 0)


def scalars() -> st.SearchStrategy[Layout]:
    return st.integers(0, 3).map(lambda offset: Layout((), (), offset))


def layouts() -> st.SearchStrategy[Layout]:
    return st.one_of(
        *(_contiguous(), _permuted(), _sliced(), _expanded(), _arbitrary(), _channels_last(), _odd_ones()),
        *(_empty(), _many_dims(), scalars()),
    )


# ---- tensors ----


class Source(NamedTuple):
    """A tensor and the bytes it lies in: writing those is writing the tensor, whatever its dtype and strides."""

    tensor: torch.Tensor
    memory: torch.Tensor


def make_source(dtype: torch.dtype, layout: Layout, seed: int) -> Source:
    """Random bit patterns, nans and subnormals included."""
    itemsize = torch.empty(0, dtype=dtype).itemsize
    random = torch.Generator().manual_seed(seed)
    most = 2 if dtype == torch.bool else 256  # any other byte is no bool
    count = max(layout.storage_elements(), 1) * itemsize
    memory = torch.randint(0, most, (count,), dtype=torch.uint8, generator=random)
    return Source(memory.view(dtype).as_strided(layout.size, layout.stride, layout.offset), memory)


def sources(dtypes: list[torch.dtype] | None = None, shapes: st.SearchStrategy[Layout] | None = None) -> Any:
    where = layouts() if shapes is None else shapes
    return st.builds(make_source, st.sampled_from(dtypes or DTYPES), where, st.integers(0, 2**32 - 1))


# ---- edits after the module has returned ----

Edit = Callable[[], object]


def _by_operation(source: Source) -> Edit:
    return lambda: source.memory.bitwise_xor_(1)


def _by_data(source: Source) -> Edit:
    return lambda: source.memory.data.bitwise_xor_(1)


def _by_numpy(source: Source) -> Edit:
    alias = source.memory.numpy()

    def edit() -> None:
        alias[:] = alias ^ 1

    return edit


def _by_dlpack(source: Source) -> Edit:
    alias = torch.from_dlpack(source.memory)
    return lambda: alias.bitwise_xor_(1)


def _by_storage(source: Source) -> Edit:
    return lambda: source.tensor.untyped_storage().fill_(1)


def _by_set(source: Source) -> Edit:
    return lambda: source.tensor.set_()  # type: ignore[call-overload]


def _by_new_data(source: Source) -> Edit:
    def edit() -> None:
        source.tensor.data = torch.empty(2, dtype=source.tensor.dtype)

    return edit


EDITS: dict[str, Callable[[Source], Edit]] = {
    "an in-place operation": _by_operation,
    "`.data`": _by_data,
    "a numpy alias": _by_numpy,
    "a DLPack alias": _by_dlpack,
    "the storage": _by_storage,
    "`set_()`": _by_set,
    "a new `.data`": _by_new_data,
}
"""Each takes its alias when it is made, before the capture, and writes through it when called, after it.

`_by_set` and `_by_new_data` change the tensor object; the others change its bytes and leave every bool a bool.
"""


# ---- nests ----

Pair = namedtuple("Pair", ["left", "right"])


class Typed(NamedTuple):
    value: Any
    note: Any = None


@dataclass(frozen=True)
class Frozen:
    value: Any
    other: Any = None


@dataclass(slots=True)
class Slotted:
    value: Any
    others: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FrozenSlotted:
    value: Any
    other: Any


@dataclass
class Output(ModelOutput):
    first: Any = None
    second: Any = None
    third: Any = None


class Attributed(dict):  # type: ignore[type-arg]
    """A dict subclass without a `copy` of its own."""


class Stack(list):  # type: ignore[type-arg]
    """A list subclass."""


def atoms() -> st.SearchStrategy[Any]:
    return st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
        *(st.binary(max_size=3), st.just(torch.float16), st.just(torch.Size([1, 2])), st.just(range(3))),
    )


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(inner, max_size=3)
    named = st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    return st.one_of(
        items.map(tuple),
        items,
        items.map(Stack),
        named,
        named.map(Attributed),
        named.map(OrderedDict),
        named.map(lambda value: defaultdict(list, value)),
        st.builds(Pair, inner, inner),
        st.builds(Typed, inner, inner),
        st.builds(Frozen, inner, inner),
        st.builds(Slotted, inner, items),
        st.builds(FrozenSlotted, inner, inner),
        st.builds(lambda first, second: Output(first=first, second=second, third="kept"), inner, inner),
    )


@st.composite
def nests(draw: st.DrawFn) -> tuple[Any, list[Source]]:
    """A nest, and the sources of the tensors in it."""
    made: list[Source] = []

    def remember(source: Source) -> torch.Tensor:
        made.append(source)
        return source.tensor

    tensor = sources().map(remember)
    solid = sources(shapes=_contiguous()).map(remember)
    pairs = st.tuples(sources(shapes=_contiguous()), sources(shapes=_contiguous()))
    several = st.one_of(
        st.sets(solid, max_size=3),
        st.frozensets(solid, max_size=3),
        pairs.map(lambda two: torch.return_types.max([remember(two[0]), remember(two[1])])),
    )
    nest = draw(st.recursive(st.one_of(tensor, tensor, atoms(), several), _containers, max_leaves=8))
    used = {id(tensor) for tensor in tensors_in(nest)}
    return nest, [source for source in made if id(source.tensor) in used]
