"""The core's stand-in for nnsight 0.8's `Interleaver.handle` does what the original does, and leaves it the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import nnsight
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nntap
from nntap import _core

if not nnsight.__version__.startswith("0.8."):
    pytest.skip("only nnsight 0.8 has this function", allow_module_level=True)

from nnsight.intervention.interleaver import Event, Interleaver, Mediator, Pending

from nntap.nnsight import v0_8_routing


@pytest.fixture(autouse=True)
def installed() -> None:
    """Nothing is installed here but by the tests themselves."""


class Cache:
    """Sees what a cache of a run is shown."""

    def __init__(self, fails: bool = False) -> None:
        self.seen: list[Any] = []
        self.fails = fails

    def observe_selected(self, selected: Any, value: Any) -> None:
        if self.fails:
            raise RuntimeError("the cache fails")
        self.seen.append((selected, value))


class Batcher:
    def __init__(self, batching: bool) -> None:
        self.batching = batching

    def narrow(self, value: Any, group: Any) -> Any:
        return value if not self.batching or group is None else (value, "rows", tuple(group))

    def assemble_skip(self, value: Any) -> Any:
        return value


class Worker:
    """A mediator, as far as a visit that it may wait for goes."""

    def __init__(self, interleaver: Interleaver, group: Any, waits_at: str | None) -> None:
        self.interleaver = interleaver
        self.batch_group = group
        self.pending = None if waits_at is None else Pending(Event.SWAP, waits_at, 0)

    def occurrence(self, provider: str) -> int:
        return self.interleaver.counts.get(provider, 0)

    def handle(self, provider: str, value: Any) -> Any:
        self.pending = None
        return ("edited", value)


PLACES = ["model.a.output", "model.b.output"]


@st.composite
def interleavers(draw: st.DrawFn) -> dict[str, Any]:
    """What an interleaver is made of, so that two alike can be made."""
    return {
        "waits_at": draw(st.sampled_from([None, *PLACES])),
        "group": draw(st.sampled_from([None, [0, 1], [1, 2]])),
        "batcher": draw(st.sampled_from([None, False, True])),
        "observed": draw(st.sets(st.sampled_from(PLACES))),
        "fails": draw(st.booleans()),
        "caches": draw(st.integers(1, 2)),
        "fragments": draw(st.sampled_from([None, False, True])),
        "counts": draw(st.dictionaries(st.sampled_from(PLACES), st.integers(0, 3))),
    }


def fragments(enabled: bool | None) -> Any:
    """Of a model whose values are pieces at one place; None: of a model that is never split."""
    if enabled is None:
        return None
    return SimpleNamespace(
        enabled=enabled,
        fragmented=lambda place: place == PLACES[0],
        whole=lambda place, value: (("whole", value), lambda made: ("a piece of", made)),
    )


def make(parts: dict[str, Any]) -> tuple[Interleaver, list[Cache]]:
    made = Interleaver(fragments=fragments(parts["fragments"]))
    worker = Worker(made, parts["group"], parts["waits_at"])
    made.mediators = [worker]
    made.counts = {} if parts["waits_at"] else dict(parts["counts"])
    made.batcher = None if parts["batcher"] is None else Batcher(parts["batcher"])
    made.parked = {parts["waits_at"]} - {None}
    caches = [Cache(parts["fails"] and i == 0) for i in range(parts["caches"])]
    made.observers = {place: [(worker, cache, i) for i, cache in enumerate(caches)] for place in parts["observed"]}
    return made, caches


def outcome(handle: Any, parts: dict[str, Any], visits: list[str]) -> tuple[Any, ...]:
    interleaver, caches = make(parts)
    given_back = []
    for number, place in enumerate(visits):
        try:
            given_back.append(handle(interleaver, place, f"value {number}"))
        except RuntimeError as error:
            given_back.append(str(error))
    return given_back, interleaver.counts, interleaver.parked, [cache.seen for cache in caches]


@given(interleavers(), st.lists(st.sampled_from([*PLACES, "model.a.skip"]), max_size=5))
def test_it_does_what_the_original_does(parts: dict[str, Any], visits: list[str]) -> None:
    original = Interleaver.handle
    assert outcome(_core.Handle(original), parts, visits) == outcome(original, parts, visits)


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        ({"waits_at": None}, False),
        ({"waits_at": "model.b.output"}, False),
        ({"waits_at": "model.a.output"}, True),
        ({"waits_at": None, "fragments": True}, True),
        ({"waits_at": None, "fragments": True, "observed": set()}, False),
        ({"waits_at": None, "fragments": False}, False),
    ],
)
def test_the_original_is_called_only_where_it_must(parts: dict[str, Any], left: bool) -> None:
    calls = []
    handle = _core.Handle(lambda *args: calls.append(args))
    whole = {"group": None, "batcher": False, "observed": {"model.a.output"}, "fails": False, "caches": 1}
    interleaver, caches = make({**whole, "fragments": None, "counts": {}, **parts})
    value = object()
    given_back = handle(interleaver, "model.a.output", value)
    assert calls == ([(interleaver, "model.a.output", value)] if left else [])
    if not left:
        assert given_back is value
        assert caches[0].seen == ([(0, value)] if interleaver.observers else [])


def test_it_is_a_method_of_the_interleaver_while_nntap_is_installed() -> None:
    original = Interleaver.handle
    with nntap.installed():
        assert Interleaver.handle.__wrapped__ is original
        interleaver = Interleaver()
        assert interleaver.handle("model.output", 3) == 3
        assert interleaver.handle(provider="model.output", value=4) == 4
        assert interleaver.counts == {"model.output": 2}
    assert Interleaver.handle is original


def test_a_function_that_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: Any, provider: str, value: Any) -> Any:
        return self.something_new(provider, value)

    assert "handle" in [name for _, name, _ in v0_8_routing.replacements(bool)]
    monkeypatch.setattr(Interleaver, "handle", handle)
    assert list(v0_8_routing.replacements(bool)) == []


def test_what_it_reads_is_what_nnsight_has() -> None:
    interleaver = Interleaver()
    for name in ("parked", "observers", "counts", "fragments", "batcher"):
        assert hasattr(interleaver, name)
    assert "batch_group" in Mediator.__init__.__code__.co_names
