"""The core's stand-in for nnsight 0.8's `Controller.__call__` does what the original does, and leaves it the rest."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import nnsight
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nntap
from nntap import _core

if not nnsight.__version__.startswith("0.8."):
    pytest.skip("only nnsight 0.8 has this class", allow_module_level=True)

from nnsight.intervention.interleaver import Event, Interleaver, Pending
from nnsight.intervention.source import NO_SKIP, Controller, State, run_body

from nntap.nnsight import v0_8_routing

nothing_installed = dict(vars(Interleaver)), dict(vars(Controller))
X = torch.arange(12.0).view(3, 4)
LOCATIONS = ("model.a.input", "model.a.skip", "model.a.output", "model.a.b.output")


class Module:
    """As much of a module as a controller asks for."""


class Cache:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def observe_selected(self, selected: Any, value: Any) -> None:
        self.seen.append((selected, value))


class Worker:
    """A mediator that waits at one place, and edits or skips there."""

    def __init__(self, interleaver: Interleaver, waits_at: str | None) -> None:
        self.interleaver = interleaver
        self.alive = waits_at is not None
        self.batch_group = None
        self.pending = None if waits_at is None else Pending(Event.SWAP, waits_at, 0)

    def occurrence(self, provider: str) -> int:
        return self.interleaver.counts.get(provider, 0)

    def handle(self, provider: str, value: Any) -> Any:
        self.pending = None
        if provider.endswith(".input"):
            args, kwargs = value
            return (*args, "edited"), kwargs
        return "skipped" if value is NO_SKIP else ("edited", value)


class DeviceHook:
    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return ("moved", *args), kwargs

    def post_forward(self, module: Any, output: Any) -> Any:
        return "moved back", output


parts_of_a_run = st.fixed_dictionaries(
    {
        "waits_at": st.sampled_from([None, *LOCATIONS]),
        "observed": st.sets(st.sampled_from(LOCATIONS)),
        "interleaving": st.booleans(),
        "busy": st.booleans(),
        "hook": st.booleans(),
        "fails": st.booleans(),
        "two_trees": st.booleans(),
        "args": st.lists(st.integers(), max_size=20),
        "kwargs": st.dictionaries(st.sampled_from(["mask", "past"]), st.integers()),
        "calls": st.integers(1, 3),
    }
)


class Run:
    """A module ``model.a`` that calls another, ``model.a.b``, under an interleaver made of the parts."""

    def __init__(self, call: Any, **parts: Any) -> None:
        parts = {"interleaving": True, "busy": True, "hook": False, "fails": False, "two_trees": False} | parts
        self.interleaver = Interleaver()
        self.interleaver.interleaving, self.interleaver.busy = parts["interleaving"], parts["busy"]
        worker = Worker(self.interleaver, parts["waits_at"])
        self.interleaver.mediators, self.interleaver.parked = [worker], {parts["waits_at"]} - {None}
        self.cache = Cache()
        self.interleaver.observers = {place: [(worker, self.cache, place)] for place in parts["observed"]}
        self.other = Interleaver()  # of another tree around the same modules; no trace of it runs
        self._call, self._fails = call, parts["fails"]
        self.inner = self._controller("model.a.b", lambda module, *args: ("inner", args), parts["two_trees"])
        self.outer = self._controller("model.a", self._forward, parts["two_trees"])
        if parts["hook"]:
            self.outer_module.__dict__["_hf_hook"] = DeviceHook()

    def _forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        assert module is self.outer_module
        inner = self._call(self.inner, *args[:1])
        if self._fails:
            raise ArithmeticError("the forward fails")
        return inner, args, kwargs

    def _controller(self, path: str, body: Any, two_trees: bool) -> Any:
        module, state = Module(), State(body)
        if two_trees:
            state.register(self.other, "elsewhere")
        state.register(self.interleaver, path)
        if path == "model.a":
            self.outer_module = module
        return SimpleNamespace(state=state, module_ref=lambda: module)

    def outcome(self, args: list[int], kwargs: dict[str, int], calls: int = 1) -> tuple[Any, ...]:
        given_back = []
        for _ in range(calls):
            try:
                given_back.append(self._call(self.outer, *args, **kwargs))
            except ArithmeticError as error:
                given_back.append(str(error))
        return given_back, self.cache.seen, self.interleaver.counts, self.other.counts


def outcome(call: Any, parts: dict[str, Any]) -> tuple[Any, ...]:
    return Run(call, **parts).outcome(parts["args"], parts["kwargs"], parts["calls"])


@given(parts_of_a_run)
def test_it_does_what_the_original_does(parts: dict[str, Any]) -> None:
    assert outcome(_core.ControllerCall(Controller.__call__), parts) == outcome(Controller.__call__, parts)


@given(parts_of_a_run)
def test_in_a_quiet_run_it_gives_back_and_shows_the_same(parts: dict[str, Any]) -> None:
    parts |= {"waits_at": None, "interleaving": True, "busy": True, "hook": False}
    parts["observed"] -= {"model.a.skip"}  # which no cache keeps
    expected = outcome(Controller.__call__, parts)
    run = Run(_core.ControllerCall(Controller.__call__), **parts)
    _core.begin_quiet_run(run.interleaver)
    try:
        given_back, seen, counts, others = run.outcome(parts["args"], parts["kwargs"], parts["calls"])
    finally:
        _core.end_quiet_run(run.interleaver)
    assert (given_back, seen, others) == (expected[0], expected[1], expected[3])
    assert counts == {}  # nobody is left to ask
    assert run.outcome(parts["args"], parts["kwargs"])[2] != {}  # and it is over


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        ({}, 0),
        ({"observed": {"model.a.output", "model.a.input"}}, 0),
        ({"interleaving": False}, 0),
        ({"waits_at": "model.a.b.output"}, 0),  # handle does that one
        ({"waits_at": "model.a.output"}, 0),
        ({"waits_at": "model.a.input"}, 1),
        ({"waits_at": "model.a.skip"}, 1),
        ({"observed": {"model.a.skip"}}, 1),
        ({"hook": True}, 1),
    ],
    ids=lambda it: " ".join(it) or "nothing" if isinstance(it, dict) else str(it),
)
def test_the_original_is_called_only_where_it_must(parts: dict[str, Any], left: int) -> None:
    calls = []

    def original(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return Controller.__call__(*args, **kwargs)

    with nntap.installed():
        Run(_core.ControllerCall(original), **{"waits_at": None, "observed": set(), **parts}).outcome([1], {})
    assert len(calls) == left


def test_a_runtime_with_a_handle_of_its_own_is_left_alone() -> None:
    visits = []

    class Own(Interleaver):
        def handle(self, provider: str, value: Any) -> Any:
            visits.append(provider)
            return value

    run = Run(_core.ControllerCall(Controller.__call__), waits_at=None, observed=set())
    run.interleaver.__class__ = Own
    run.outcome([1], {})
    inner = ["model.a.b.input", "model.a.b.skip", "model.a.b.output"]
    assert visits == ["model.a.input", "model.a.skip", *inner, "model.a.output"]
    assert not v0_8_routing.is_quiet(run.interleaver)


def test_a_controller_whose_module_is_gone_is_nnsights() -> None:
    run = Run(_core.ControllerCall(run_nothing), waits_at=None, observed=set())
    run.outer.module_ref = lambda: None
    assert run.outcome([1], {})[0] == ["nothing"]


def run_nothing(*_: Any, **__: Any) -> str:
    return "nothing"


def test_a_quiet_run_of_what_is_no_interleaver_is_refused() -> None:
    with pytest.raises(AttributeError, match="observers"):
        _core.begin_quiet_run(object())
    with pytest.raises(ValueError, match=r"Interleaver\.observers is no dict"):
        _core.begin_quiet_run(SimpleNamespace(observers=[]))
    _core.end_quiet_run(object())  # never begun


# ---- when it is in place ----


@pytest.fixture
def model() -> Any:
    return nnsight.NNsight(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))


def in_place_during(model: Any, *, fails: bool = False, caches: bool = True) -> Any:
    """What `Controller.__call__` was while the model ran."""
    seen = []

    def look(*_: Any) -> None:
        seen.append(Controller.__call__)
        if fails:
            raise ArithmeticError

    handle = model._module[1].register_forward_hook(look)
    try:
        with model.trace(X) as tracer:
            if caches:
                tracer.cache()
    except ArithmeticError:
        assert fails
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_there_while_a_run_records(model: Any, fails: bool) -> None:
    own = Controller.__call__
    assert isinstance(in_place_during(model, fails=fails), _core.ControllerCall)
    assert Controller.__call__ is own
    assert in_place_during(model, caches=False) is own


def test_it_stays_while_another_run_records(model: Any) -> None:
    own = Controller.__call__
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        inside.set()
        assert go_on.wait(60)

    slow = nnsight.NNsight(nn.Sequential(nn.Linear(4, 4)))
    slow._module.register_forward_hook(wait)
    caches = []

    def run() -> None:
        with slow.trace(X) as tracer:
            caches.append(tracer.cache())

    thread = threading.Thread(target=run)
    thread.start()
    assert inside.wait(60)
    in_place_during(model)
    assert isinstance(Controller.__call__, _core.ControllerCall)
    go_on.set()
    thread.join()
    assert Controller.__call__ is own
    assert list(caches[0].keys()) == ["model.0", "model"]


def test_uninstalling_inside_a_run_leaves_nothing_behind(model: Any) -> None:
    handle = model._module[1].register_forward_hook(lambda *_: nntap.uninstall())
    with model.trace(X) as tracer:
        cache = tracer.cache()
    handle.remove()
    assert nothing_installed == (dict(vars(Interleaver)), dict(vars(Controller)))
    assert len(cache) == 4
    nntap.install()


def test_a_traced_model_compiles_in_one_piece_while_nntap_is_installed(model: Any) -> None:
    with model.trace(X) as tracer:
        tracer.cache()
    torch._dynamo.reset()
    compiled = torch.compile(model._module, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), model._module(X))


def runs_found_quiet(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    found: list[bool] = []
    is_quiet = v0_8_routing.is_quiet
    monkeypatch.setattr(v0_8_routing, "is_quiet", lambda run: (found.append(is_quiet(run)), found[-1])[1])
    return found


def test_a_run_that_only_records_is_quiet(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = runs_found_quiet(monkeypatch)
    with model.trace(X) as tracer:
        tracer.cache()
        tracer.cache(modules=["model.0"])
    with model.trace() as tracer:
        with tracer.invoke(X):
            tracer.cache()
    assert found == [True, True]


def test_a_run_that_does_more_is_not_quiet(gpt2: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = runs_found_quiet(monkeypatch)
    with model.trace(X) as tracer:
        tracer.cache()
        model[1].output = model[1].output + 1
    with gpt2.trace() as tracer:
        with tracer.invoke("One"):
            tracer.cache()
        with tracer.invoke("Two"):
            tracer.cache()
    assert found == [False, False]


def test_a_driver_that_takes_the_caches_away_ends_the_recording(model: Any) -> None:
    own = Controller.__call__
    interleaver = model.interleaver

    def take_away(*_: Any) -> None:
        interleaver.mediators[0].caches.clear()
        interleaver.reindex()

    handle = model._module[0].register_forward_hook(take_away)
    with model.trace(X) as tracer:
        cache = tracer.cache()
    handle.remove()
    assert list(cache.keys()) == ["model.0"]
    assert Controller.__call__ is own


def test_a_function_that_has_changed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced() -> set[str]:
        return {name for _, name, _ in v0_8_routing.replacements(bool)}

    nntap.uninstall()
    assert replaced() == {"handle", "reindex", "__exit__"}
    monkeypatch.setattr(State, "active", lambda self: self.something_new())
    assert replaced() == {"handle"}


def test_what_it_reads_is_what_nnsight_has() -> None:
    state = State(lambda module: None)
    interleaver = Interleaver()
    state.register(interleaver, "model.a")
    ((reference, path, locations),) = state.routes
    assert reference() is interleaver
    assert (path, locations) == ("model.a", LOCATIONS[:3])
    for name in ("interleaving", "busy", "handle", "observers", "mediators", "batcher", "fragments"):
        assert hasattr(interleaver, name)
    assert "_hf_hook" in run_body.__code__.co_consts
