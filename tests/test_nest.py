"""Containers whose own code stands in the way of a record: constructors, copies, checks, attributes, cycles."""

from __future__ import annotations

import enum
import weakref
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import nnsight
import pytest
import torch
from hypothesis import given
from torch import nn

import nntap
from helpers import record, tensors_in
from nntap import core, nest
from strategies import Source, nests

Thing = TypeVar("Thing")


class AttrDict(dict):  # type: ignore[type-arg]
    def __init__(self, **items: Any) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Dict(dict):  # type: ignore[type-arg]
    """With attributes."""


class List(list):  # type: ignore[type-arg]
    """With attributes."""


class Set(set):  # type: ignore[type-arg]
    def __init__(self, items: Any, note: str) -> None:
        super().__init__(items)
        self.note = note


class FrozenSet(frozenset):  # type: ignore[type-arg]
    __slots__ = ("extra",)


class Named(namedtuple("Named", "x")):
    pass


class Careful(namedtuple("Careful", "x")):
    def __new__(cls, x: torch.Tensor) -> Careful:
        assert isinstance(x, torch.Tensor)
        return super().__new__(cls, x)


class Typed(NamedTuple):
    x: Any


class Ordered(OrderedDict):  # type: ignore[type-arg]
    def __init__(self, logits: Any, number: int) -> None:
        super().__init__(logits=logits)
        self.number = number


class Numbered(OrderedDict):  # type: ignore[type-arg]
    def __init__(self, number: int = 0, **items: Any) -> None:
        super().__init__(**items)
        self.number = number


class Default(defaultdict):  # type: ignore[type-arg]
    def __init__(self, x: Any) -> None:
        super().__init__(list)
        self["x"] = x


class ReadOnly(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, item: Any) -> None:
        raise TypeError("this dict is read-only")

    update = __setitem__  # type: ignore[assignment]


class Checking(OrderedDict):  # type: ignore[type-arg]
    def __setitem__(self, key: Any, item: Any) -> None:
        assert isinstance(item, torch.Tensor)
        super().__setitem__(key, item)


class CopiesAreSelf:
    def copy(self) -> Any:
        return self

    def __copy__(self) -> Any:
        return self


class FixedDict(CopiesAreSelf, dict):  # type: ignore[type-arg]
    pass


class FixedOrdered(CopiesAreSelf, OrderedDict):  # type: ignore[type-arg]
    pass


class FixedList(CopiesAreSelf, list):  # type: ignore[type-arg]
    pass


@dataclass(frozen=True)
class FixedFields(CopiesAreSelf):
    x: Any


@dataclass
class Derived:
    x: Any

    def __post_init__(self) -> None:
        self.no_field = self.x


@dataclass(frozen=True)
class Caches:
    x: Any

    @cached_property
    def twice(self) -> Any:
        return self.x * 2


@dataclass(frozen=True)
class HandMadeSlots:
    __slots__ = ("x",)
    x: Any


class Below:
    __slots__ = ("__hidden", "never")

    def hide(self, x: Any) -> None:
        self.__hidden = x

    def hidden(self) -> Any:
        return self.__hidden


@dataclass(slots=True)
class Above(Below):
    x: Any = None


class OnlyTensors:
    def __set_name__(self, owner: type, name: str) -> None:
        self.name = "_" + name

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else vars(owner)[self.name]

    def __set__(self, owner: Any, item: Any) -> None:
        assert isinstance(item, torch.Tensor)
        vars(owner)[self.name] = item


@dataclass
class Described:
    x: Any = OnlyTensors()


@dataclass
class FieldsOfADict(dict):  # type: ignore[type-arg]
    x: Any = None


@dataclass
class FieldsOfAList(list):  # type: ignore[type-arg]
    x: Any = None


@dataclass
class Generated(Generic[Thing]):
    x: Thing


@dataclass(eq=False)
class Node:
    x: Any
    other: Any = None


def with_extra(value: Any, x: torch.Tensor) -> Any:
    value.extra = x
    return value


def hiding(x: torch.Tensor) -> Above:
    value = Above()
    value.hide(x)
    return value


def cached(x: torch.Tensor) -> Caches:
    value = Caches(x)
    vars(value)["twice"] = x
    return value


def moved(x: torch.Tensor) -> Any:
    value: Any = OrderedDict(x=x, y=1)
    value.move_to_end("x")
    return value


class Colour(enum.Enum):
    RED = 1


CASES: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[Any], Any]]] = {
    "dict that is its own attributes, item": (lambda x: AttrDict(x=x), lambda value: value["x"]),
    "dict that is its own attributes, attribute": (lambda x: AttrDict(x=x), lambda value: value.x),
    "attribute of a dict": (lambda x: with_extra(Dict(a=1), x), lambda value: value.extra),
    "attribute of a list": (lambda x: with_extra(List([1]), x), lambda value: value.extra),
    "attribute of a set": (lambda x: with_extra(Set([1], "note"), x), lambda value: value.extra),
    "attribute of a frozen set": (lambda x: with_extra(FrozenSet([1]), x), lambda value: value.extra),
    "attribute of a named tuple": (lambda x: with_extra(Named(1), x), lambda value: value.extra),
    "attribute and item of a named tuple": (lambda x: with_extra(Named(x), x), lambda value: value.extra),
    "attribute of an OrderedDict": (lambda x: with_extra(Numbered(), x), lambda value: value.extra),
    "attribute named as another item": (lambda x: with_extra(Dict(extra=x + 1), x), lambda value: value.extra),
    "constructor of a set": (lambda x: Set([x], "note"), lambda value: next(iter(value))),
    "constructor of a named tuple": (Careful, lambda value: value.x),
    "constructor of an OrderedDict": (lambda x: Ordered(x, 3), lambda value: value["logits"]),
    "constructor of a defaultdict": (Default, lambda value: value["x"]),
    "dict that refuses items": (lambda x: ReadOnly(x=x), lambda value: value["x"]),
    "dict that checks items": (lambda x: Checking(x=x), lambda value: value["x"]),
    "dict that is its own copy": (lambda x: FixedDict(x=x), lambda value: value["x"]),
    "OrderedDict that is its own copy": (lambda x: FixedOrdered(x=x), lambda value: value["x"]),
    "list that is its own copy": (lambda x: FixedList([x]), lambda value: value[0]),
    "dataclass that is its own copy": (FixedFields, lambda value: value.x),
    "derived attribute": (Derived, lambda value: value.no_field),
    "cached property": (cached, lambda value: value.twice),
    "frozen with slots made by hand": (HandMadeSlots, lambda value: value.x),
    "hidden slot of a base": (hiding, lambda value: value.hidden()),
    "field that checks": (Described, lambda value: value.x),
    "field of a dict": (FieldsOfADict, lambda value: value.x),
    "field of a list": (FieldsOfAList, lambda value: value.x),
    "generic dataclass": (Generated[torch.Tensor], lambda value: value.x),
    "typed named tuple": (Typed, lambda value: value.x),
    "items by an enumeration": (lambda x: OrderedDict({Colour.RED: x}), lambda value: value[Colour.RED]),
    "OrderedDict in another order": (moved, lambda value: list(value.values())[1]),
    "torch.return_types": (lambda x: torch.return_types.max((x, x + 1)), lambda value: value.values),
}
all_cases = pytest.mark.parametrize(("make", "find"), CASES.values(), ids=CASES)


class Makes(nn.Module):
    """Gives back what its function makes of the input."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(x)


@all_cases
@pytest.mark.parametrize("detach", [True, False], ids=["fast", "slow"])
def test_a_record_is_a_snapshot_of_the_same_type_and_the_output_stays_as_it_is(
    make: Callable[[torch.Tensor], Any], find: Callable[[Any], Any], detach: bool
) -> None:
    x = torch.zeros(3)
    model = Makes(make)
    with nntap.capture(model, detach=detach) as cache:
        out = model(x)
    assert find(out) is x
    x.add_(1)
    read = cache[""].output
    assert type(read) is type(out)
    assert read is not out
    assert find(read).tolist() == [0, 0, 0]
    assert find(out) is x


@all_cases
def test_inputs_too(make: Callable[[torch.Tensor], Any], find: Callable[[Any], Any]) -> None:
    x = torch.zeros(3)
    value = make(x)
    model = Makes(lambda value: find(value).add_(1))
    with nntap.capture(model, include_inputs=True) as cache:
        model(value)
    assert type(cache[""].input) is type(value)
    assert find(cache[""].input).tolist() == [0, 0, 0]
    assert find(value) is x


@all_cases
def test_under_nnsight(make: Callable[[torch.Tensor], Any], find: Callable[[Any], Any]) -> None:
    given = []

    def give(x: torch.Tensor) -> Any:
        given.append(make(x))
        return given[0]

    model = nn.Sequential(Makes(give), Makes(lambda value: find(value).add_(1)))
    with nntap.installed(), nnsight.NNsight(model).trace(torch.zeros(3)) as tracer:
        cache = tracer.cache()
    assert type(cache["model.0"].output) is type(given[0])
    assert find(cache["model.0"].output).tolist() == [0, 0, 0]
    assert find(given[0]).tolist() == [1, 1, 1]


def test_what_is_no_tensor_is_kept() -> None:
    ordered, _ = record(Ordered(torch.ones(2), 3))
    assert ordered.number == 3
    assert list(ordered) == ["logits"]
    numbered = Numbered(3, x=torch.ones(2))
    numbered.note = "kept"
    read, _ = record(numbered)
    assert vars(read) == {"number": 3, "note": "kept"}
    default, _ = record(Default(torch.ones(2)))
    assert default["missing"] == []
    assert record(Set([torch.ones(2)], "note"))[0].note == "note"
    read, _ = record(moved(torch.ones(2)))
    assert list(read) == ["y", "x"]


def test_a_slot_that_was_never_set_stays_so() -> None:
    read, _ = record(hiding(torch.ones(2)))
    assert not hasattr(read, "never")
    assert read.x is None


def test_a_record_refers_to_itself_where_its_own_attributes_do() -> None:
    read, _ = record(AttrDict(x=torch.ones(2)))
    assert vars(read) is read
    read.y = 1
    assert read["y"] == 1


def test_an_object_that_is_there_twice_is_once_in_the_record() -> None:
    inner = Node(torch.ones(2))
    read, stats = record(Node([inner, Dict(a=inner)], inner))
    assert read.other is read.x[0] is read.x[1]["a"]
    assert read.other is not inner
    assert stats.records == 1


# ---- what holds itself ----


@pytest.mark.parametrize("kind", [dict, Dict, OrderedDict, defaultdict, AttrDict])
def test_a_dict_that_holds_itself(kind: type) -> None:
    value = kind()
    value["x"], value["self"] = torch.ones(2), value
    read, _ = record(value)
    value["x"].zero_()
    assert type(read) is kind
    assert read is not value
    assert read["self"] is read
    assert read["x"].tolist() == [1, 1]


@pytest.mark.parametrize("kind", [list, List])
def test_a_list_that_holds_itself(kind: type) -> None:
    value = kind([torch.ones(2)])
    value.append((value, {"deep": value}))
    read, _ = record(value)
    value[0].zero_()
    assert read[1][0] is read[1][1]["deep"] is read
    assert read[0].tolist() == [1, 1]


def test_objects_that_hold_each_other() -> None:
    one, two = Node(torch.ones(2)), Node(torch.ones(2) * 2)
    one.other, two.other = two, one
    read, _ = record(one)
    one.x.zero_()
    two.x.zero_()
    assert read.other.other is read
    assert read.x.tolist() == [1, 1]
    assert read.other.x.tolist() == [2, 2]


def test_a_named_tuple_with_itself_as_an_attribute() -> None:
    value = Named(torch.ones(2))
    value.extra = [value]
    read, _ = record(value)
    assert read.extra[0] is read


@pytest.mark.parametrize("around", [lambda node: {node}, lambda node: frozenset([node]), lambda node: [node]])
def test_a_collection_of_an_object_that_holds_the_collection(around: Callable[[Node], Any]) -> None:
    node = Node(torch.ones(2))
    node.other = around(node)
    read, _ = record(node)
    node.x.zero_()
    assert next(iter(read.other)) is read
    assert read.x.tolist() == [1, 1]
    read, _ = record(around(node))
    assert next(iter(read)).x.tolist() == [0, 0]


def test_a_named_tuple_in_a_list_that_is_in_it() -> None:
    items: list[Any] = [torch.ones(2)]
    value = Typed(items)
    items.append(value)
    read, _ = record(value)
    items[0].zero_()
    assert read.x[0].tolist() == [1, 1]


# ---- what cannot be built ----


class Hides(dict):  # type: ignore[type-arg]
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise AttributeError


class Lies:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]


class OfAnUnhashableClass(metaclass=Unhashable):
    pass


@dataclass
class MadeInC(Exception):
    x: Any


@dataclass(frozen=True)
class HashesItsSize:
    x: torch.Tensor

    def __hash__(self) -> int:
        return hash(self.x.shape)


@dataclass(eq=False)
class FieldsOfAModule(nn.Module):
    x: Any

    def __post_init__(self) -> None:
        super().__init__()


class Settings(NamedTuple):
    size: int


@dataclass(frozen=True)
class Setting:
    size: int


class Sizes(Setting, enum.Enum):
    SMALL = 1


class Pairs(Settings, enum.Enum):
    SMALL = 1


KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "attributes behind a property": lambda x: Hides(x=x),
    "a class that raises": lambda x: Lies(),
    "a class without a hash": lambda x: OfAnUnhashableClass(),
    "an exception": MadeInC,
    "a module": FieldsOfAModule,
    "an enumeration with fields": lambda x: Sizes.SMALL,
    "an enumeration of tuples": lambda x: Pairs.SMALL,
}


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_what_cannot_be_built_or_is_no_container_is_kept_by_reference(make: Callable[[torch.Tensor], Any]) -> None:
    value = make(torch.ones(2))
    tensor = torch.ones(3)
    read, _ = record([value, Dict(extra=value), tensor])
    tensor.zero_()
    assert read[0] is read[1]["extra"] is value
    assert read[2].tolist() == [1, 1, 1]


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_of_what_has_no_hash_without_its_tensor_keeps_the_tensor(kind: type) -> None:
    value = HashesItsSize(torch.ones(2))
    read, _ = record(kind([value]))
    assert type(read) is kind
    assert next(iter(read)).x is value.x


class Uncopied(torch.Tensor):
    def detach(self) -> Any:
        raise ZeroDivisionError

    clone = detach


def test_what_recording_a_tensor_raises_is_raised() -> None:
    bad = torch.ones(2).as_subclass(Uncopied)
    for value in (Dict(x=bad), {1: Node(List([bad]))}, Named(bad), with_extra(Set([1], ""), bad)):
        with pytest.raises(ZeroDivisionError):
            record(value)
    assert record(Node(torch.ones(2)))[0].x.tolist() == [1, 1]


def test_a_chain_deeper_than_the_recursion_limit_is_an_error_and_not_a_crash() -> None:
    value = None
    for _ in range(2000):
        value = Node(torch.ones(1), value)
    with pytest.raises(RecursionError):
        record(value)


def test_a_walk_that_python_code_kept_is_over_with_its_value() -> None:
    kept = []

    def rebuild(value: Any, walk: Callable[[Any], Any]) -> Any:
        kept.append(walk)
        return walk([1])

    recorder = core.Recorder(1, torch.clone, rebuild)
    code = core.location_code(0, core.OUTPUT)
    recorder.record(code, object())
    assert recorder.read(0, 0, core.OUTPUT) == [1]
    for walk in kept:
        with pytest.raises(RuntimeError, match="has been recorded or read"):
            walk([1])


def test_no_container_outlives_its_recording() -> None:
    value = Node(Dict(x=torch.ones(2)))
    gone = weakref.ref(value)
    record(value)
    del value
    assert gone() is None


# ---- looking into a nest ----


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")  # torch says so once
@given(nests())
def test_the_walk_finds_every_tensor_that_is_recorded(made: tuple[Any, list[Source]]) -> None:
    value, _ = made
    found = list(nest.tensors_in(value))
    assert sorted(map(id, found)) == sorted(map(id, tensors_in(value)))
    read, stats = record(value)
    assert len(list(nest.tensors_in(read))) == stats.records + sum(stats.slow.values())


def test_a_nest_that_holds_itself_is_looked_into_once() -> None:
    value: list[Any] = [torch.ones(1)]
    value.append({"again": value, "other": torch.zeros(1)})
    assert [place for place, _ in nest.leaves_of(value)] == [(0,), (1, "other")]


def test_attributes_of_containers_are_found_too() -> None:
    value = Dict(item=torch.ones(1))
    value.extra = torch.zeros(1)  # type: ignore[attr-defined]
    assert [place for place, _ in nest.leaves_of(value)] == [("item",), ("extra",)]
