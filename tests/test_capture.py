"""Stand-alone capture: what it records, and that it leaves the model as it found it on every way out."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Give, Model, compiles, hooks_of
from nntap import _core, eager
from nntap.core import Hook
from nntap.options import Options


@pytest.fixture
def model() -> Model:
    return Model().eval()


# ---- every way out ----


class Stop(BaseException):
    """Like KeyboardInterrupt: no Exception."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, Stop])
@pytest.mark.parametrize("where", ["in the model", "in the block"])
def test_the_hooks_are_gone_and_the_records_stay_when_something_raises(
    model: Model, error: type[BaseException], where: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    if where == "in the model":
        model.layers[1].mlp.register_forward_pre_hook(fail)
    own = hooks_of(model)
    cache = None

    def run() -> None:
        nonlocal cache
        with nntap.capture(model, include_inputs=True) as cache:
            model(IDS)
            fail()

    with pytest.raises(error):
        run()
    assert cache is not None
    assert hooks_of(model) == own
    assert cache.layers[0].output.shape == (1, 3, 4)
    assert ("layers.2" in cache) == (where == "in the block")
    if where == "in the model":
        assert cache["layers.1"].output is None
        assert torch.equal(cache["layers.1"].input, cache["layers.0"].output)


def test_the_hooks_are_gone_when_a_generator_that_captures_is_closed(model: Model) -> None:
    def steps() -> Iterator[nntap.Cache]:
        with nntap.capture(model) as cache:
            model(IDS)
            yield cache
            yield cache

    running = steps()
    cache = next(running)
    assert hooks_of(model) != []
    running.close()
    assert hooks_of(model) == []
    model(IDS)
    assert len(cache["embed"]) == 1


def test_the_hooks_are_gone_when_a_generator_that_captures_is_forgotten(model: Model) -> None:
    def steps() -> Iterator[nntap.Cache]:
        with nntap.capture(model) as cache:
            yield cache

    running = steps()
    next(running)
    del running
    gc.collect()
    assert hooks_of(model) == []


def test_the_hooks_are_gone_when_installing_them_fails(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    class Refuses:
        """A recorder whose taps cannot be put on; it is asked for them after the input hooks are."""

        def __init__(self, recorder: Any) -> None:
            self._recorder = recorder

        def __getattr__(self, name: str) -> Any:
            return getattr(self._recorder, name)

        def tap(self, modules: Any) -> None:
            found.extend(hooks_of(model))
            self._recorder.tap(modules)
            raise RuntimeError("no taps here")

    recorder = Options.recorder
    monkeypatch.setattr(Options, "recorder", lambda self, paths: Refuses(recorder(self, paths)))
    with pytest.raises(RuntimeError, match="no taps here"), nntap.capture(model, include_inputs=True):
        pass
    assert any(isinstance(hook, Hook) for hook in found)
    assert hooks_of(model) == []


@pytest.mark.parametrize("fails", ["untap", "close"])
def test_the_hooks_are_gone_when_leaving_the_block_raises(
    model: Model, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    class Fails:
        """A recorder of which one call does what it should, and then raises."""

        def __init__(self, recorder: Any) -> None:
            self._recorder = recorder

        def __getattr__(self, name: str) -> Any:
            return self._then_raise if name == fails else getattr(self._recorder, name)

        def _then_raise(self, *arguments: Any) -> None:
            getattr(self._recorder, fails)(*arguments)
            raise RuntimeError("no more")

    with monkeypatch.context() as patched:
        recorder = Options.recorder
        patched.setattr(Options, "recorder", lambda self, paths: Fails(recorder(self, paths)))
        capture = nntap.capture(model, include_inputs=True)
        with pytest.raises(RuntimeError, match="no more"), capture:
            pass
    assert hooks_of(model) == []
    assert not eager._captures


def test_nothing_more_is_recorded_once_the_block_has_ended(model: Model) -> None:
    with nntap.capture(model, "embed") as cache:
        model(IDS)
    model(IDS)
    assert len(cache["embed"]) == 1


def test_a_forward_that_outlives_the_capture_records_nothing_after_it() -> None:
    started, go_on = threading.Event(), threading.Event()
    first, second = nn.Identity(), nn.Identity()

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            started.set()
            assert go_on.wait(60)
            return self.second(x)

    model = Slow()
    runner = threading.Thread(target=model, args=(torch.ones(2),))
    with nntap.capture(model) as cache:
        runner.start()
        assert started.wait(60)
    go_on.set()
    runner.join()
    assert cache.keys() == ["first"]


def test_the_model_s_own_results_and_hooks_are_left_alone(model: Model) -> None:
    calls: list[str] = []
    handle = model.layers[0].register_forward_hook(lambda *_: calls.append("hook"))
    expected = model(IDS)
    with nntap.capture(model, include_inputs=True):
        got = model(IDS)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert calls == ["hook", "hook"]
    handle.remove()
    assert hooks_of(model) == []


def test_a_model_can_be_copied_while_it_is_captured(model: Model) -> None:
    with nntap.capture(model, include_inputs=True) as cache:
        twin = copy.deepcopy(model)
        twin(IDS)
        model(IDS)
    assert all(torch.equal(twin(IDS)[name], value) for name, value in model(IDS).items())
    assert cache["embed"].output.shape == (1, 3, 4)


# ---- nested, re-entered, overlapping ----


def test_nested_captures_each_record_their_own(model: Model) -> None:
    with nntap.capture(model, "embed") as outer:
        model(IDS)
        with nntap.capture(model, ["embed", "layers.0"], dtype="float16") as inner:
            model(IDS)
        model(IDS)
    assert (len(outer["embed"]), len(inner["embed"])) == (3, 1)
    assert outer.keys() == ["embed"]
    assert inner["embed"].output.dtype == torch.float16
    assert outer["embed"][0].output.dtype == torch.float32
    assert hooks_of(model) == []


def test_captures_may_end_in_any_order(model: Model) -> None:
    first, second = nntap.capture(model, "embed"), nntap.capture(model, "embed")
    one = first.__enter__()
    two = second.__enter__()
    first.__exit__(None, None, None)
    model(IDS)
    second.__exit__(None, None, None)
    assert (len(one), len(two)) == (0, 1)
    assert hooks_of(model) == []


def test_a_capture_may_be_entered_again_and_gives_a_new_cache(model: Model) -> None:
    capture = nntap.capture(model, "embed")
    with capture as first:
        model(IDS)
    with capture as second:
        model(IDS + 1)
    assert not torch.equal(first["embed"].output, second["embed"].output)
    assert (len(first["embed"]), len(second["embed"])) == (1, 1)


def test_a_capture_may_be_entered_while_it_is_open(model: Model) -> None:
    capture = nntap.capture(model, "embed")
    with capture as outer:
        with capture as inner:
            model(IDS)
        model(IDS)
    assert (len(outer["embed"]), len(inner["embed"])) == (2, 1)
    assert hooks_of(model) == []


def test_a_capture_that_is_not_entered_says_how_to(model: Model) -> None:
    capture = nntap.capture(model)
    with pytest.raises(AttributeError, match=r"no attribute 'keys'.* `with nntap\.capture"):
        capture.keys()  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="has not been entered"):
        capture.__exit__(None, None, None)


def test_one_capture_object_entered_by_two_threads_gives_each_its_own_cache() -> None:
    model = nn.Identity()
    capture = nntap.capture(model)
    entered, left = threading.Event(), threading.Event()
    counts = {}

    def other() -> None:
        with capture as cache:
            entered.set()
            assert left.wait(60)
            model(torch.ones(1))
            counts["the other's"] = len(cache.values())

    thread = threading.Thread(target=other)
    with capture as mine:
        thread.start()
        assert entered.wait(60)
    left.set()
    thread.join()
    assert counts == {"the other's": 1}
    assert len(mine) == 0
    assert hooks_of(model) == []


# ---- kinds of modules ----


@compiles
def test_a_compiled_model_is_recorded_by_its_own_paths() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 3)
    with nntap.capture(compiled) as cache:
        out = compiled(x)
    assert torch.equal(cache["_orig_mod.1"].output, out)
    assert torch.equal(cache["_orig_mod.0"].output, model[0](x))


def test_a_traced_model_is_recorded_at_its_root() -> None:
    x = torch.randn(2, 3)
    traced = torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), x)
    with nntap.capture(traced) as cache:
        out = traced(x)
    assert torch.equal(cache[""].output, out)


def test_the_inputs_of_a_scripted_model_are_refused_before_it_runs() -> None:
    traced = torch.jit.trace(nn.Linear(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match="include_inputs=True is not allowed for a ScriptModule"):
        nntap.capture(traced, include_inputs=True)


def test_a_checkpointed_block_is_seen_again_in_the_backward() -> None:
    block = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    x = torch.randn(2, 3, requires_grad=True)
    with nntap.capture(block) as cache:
        torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False).sum().backward()
    assert len(cache["0"]) == 2
    assert torch.equal(cache["0"][0].output, cache["0"][1].output)


def test_records_under_autocast_have_the_dtype_of_the_moment() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16), nntap.capture(model) as cache:
        model(torch.randn(2, 4))
    assert cache["0"].output.dtype == torch.float32
    assert cache["1"].output.dtype == torch.bfloat16


# ---- a block that ends while the model runs ----


def test_inputs_are_recorded_or_not_but_the_model_runs_on_when_the_block_ends_inside_a_call() -> None:
    model = nn.Linear(2, 2)
    capture = nntap.capture(model, include_inputs=True)
    leave = [lambda: capture.__exit__(None, None, None)]
    model.register_forward_pre_hook(lambda *_: leave.pop()() if leave else None)
    cache = capture.__enter__()
    model(torch.ones(1, 2))
    assert len(cache) == 0
    assert hooks_of(model)[1:] == []


def test_hooks_that_others_took_off_are_no_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with nntap.capture(model, include_inputs=True) as cache:
        model[0]._forward_pre_hooks.clear()
        for _ in range(2):
            model[0].register_forward_pre_hook(lambda *_: None)
        model(torch.ones(1, 2))
    assert cache[""].input.tolist() == [[1, 1]]


# ---- copies of a captured model ----


class WithItsOwnState(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)


def test_copies_and_pickles_of_a_module_with_its_own_state_have_no_tap() -> None:
    model = WithItsOwnState(2, 2)
    x = torch.ones(1, 2)
    with nntap.capture(model) as cache:
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            with torch.no_grad():
                twin.bias += 1
            assert torch.allclose(twin(x), model(x) + 1)
    assert len(cache[""]) == 2


# ---- the mode of whoever reads ----


def test_records_are_ordinary_tensors_in_whichever_mode_they_are_made_and_read() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Give(lambda: torch.ones(2, dtype=torch.complex64).conj()))
    for making, reading in itertools.product((False, True), repeat=2):
        with torch.inference_mode(making), nntap.capture(model) as cache:
            model[0](torch.ones(1, 2))
            model[1]()
        with torch.inference_mode(reading):
            records = [cache[path].output for path in ("0", "1")]
            assert torch.is_inference_mode_enabled() == reading
        for record in records:
            assert not record.is_inference()
            (torch.ones(2, requires_grad=True) * record).abs().sum().backward()


def test_taps_are_as_many_as_paths() -> None:
    recorder = Options.check("cpu", None, True, True, False).recorder(1)
    with pytest.raises(ValueError, match="2 modules for the recorder's 1 paths"):
        recorder.tap([nn.Linear(1, 1), nn.Linear(1, 1)])


def test_a_tap_that_cannot_be_set_takes_the_others_off() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    recorder = _core.Recorder(3, torch.clone, lambda value, walk: value)
    with pytest.raises(AttributeError, match="__dict__"):
        recorder.tap([model[0], object(), model[1]])
    assert hooks_of(model) == []
