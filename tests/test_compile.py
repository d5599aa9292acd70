"""Compiled models run eagerly while they are captured, and compiled again afterwards: `nntap.eager`."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

import nntap
from helpers import assert_script_runs, compiles, hooks_of
from nntap import eager

pytestmark = compiles


class Compiler:
    """A torch.compile backend that counts the calls of what it compiled."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: Any, _: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.calls += 1
            return graph(*args)

        return run


@pytest.fixture
def model() -> nn.Module:
    torch._dynamo.reset()
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


X = torch.ones(2, 4)


def test_a_model_compiled_before_is_recorded_whole(model: nn.Module) -> None:
    backend = Compiler()
    compiled = torch.compile(model, backend=backend)
    expected = compiled(X)
    assert backend.calls == 1
    with nntap.capture(compiled) as cache:
        compiled(X)
    assert cache.keys() == ["_orig_mod.0", "_orig_mod.1", "_orig_mod.2", "_orig_mod", ""]
    assert torch.allclose(cache[""].output, expected)
    assert backend.calls == 1
    compiled(X)
    assert backend.calls == 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


def test_a_model_compiled_in_place_is_recorded_whole_and_stays_compiled() -> None:
    torch._dynamo.reset()
    model, backend = Block(), Compiler()
    model.compile(backend=backend)
    model(X)
    own = vars(model)["_compiled_call_impl"]
    with nntap.capture(model) as cache:
        model(X)
    assert cache.keys() == ["linear", ""]
    assert vars(model)["_compiled_call_impl"] is own
    model(X)
    assert backend.calls == 2


def test_a_function_compiled_inside_the_block_is_recorded(model: nn.Module) -> None:
    with nntap.capture(model) as cache:
        torch.compile(lambda x: model(x) * 2, backend="eager")(X)
    assert cache.keys() == ["0", "1", "2", ""]


def test_compiling_in_place_inside_the_block_is_kept_and_said(model: nn.Module) -> None:
    def compile_inside() -> Any:
        with nntap.capture(model):
            model.compile(backend="eager")
            return vars(model)["_compiled_call_impl"]

    with pytest.warns(RuntimeWarning, match="1 of the captured modules were compiled inside"):
        own = compile_inside()
    assert hooks_of(model) == [own]


def test_captures_that_overlap_give_the_compiler_back_once(model: nn.Module) -> None:
    backend = Compiler()
    compiled = torch.compile(model, backend=backend)
    first, second = nntap.capture(compiled), nntap.capture(compiled)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    compiled(X)
    assert backend.calls == 0
    second.__exit__(None, None, None)
    compiled(X)
    assert backend.calls == 1


def test_a_capture_that_opens_while_the_last_one_ends_is_recorded_whole(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Compiler()
    compiled = torch.compile(model, backend=backend)
    second, caches = nntap.capture(compiled), []
    opener = threading.Thread(target=lambda: caches.append(second.__enter__()))

    def slow() -> ExitStack:
        """Gives the other thread time to open its capture; it may not succeed before this is done."""
        stance = ExitStack()
        stance.push(force_eager().__exit__)
        if not opener.ident:
            stance.callback(opener.join, 1)
            stance.callback(opener.start)
        return stance

    force_eager = eager._force_eager
    monkeypatch.setattr(eager, "_force_eager", slow)
    with nntap.capture(compiled):
        pass
    opener.join()
    compiled(X)
    assert (backend.calls, len(caches[0])) == (0, 5)
    second.__exit__(None, None, None)
    compiled(X)
    assert backend.calls == 1


def test_a_capture_inside_compiled_code_is_refused_and_leaves_nothing(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("attempted to set_stance in a torch.compile region")  # what torch says, from 2.6 on

    with monkeypatch.context() as patched:
        patched.setattr(eager, "_force_eager", refuse)
        with pytest.raises(RuntimeError, match="compile region"), nntap.capture(model, include_inputs=True):
            pass
    assert hooks_of(model) == []
    backend = Compiler()
    with nntap.capture(model):
        pass
    torch.compile(model, backend=backend)(X)
    assert backend.calls == 1


def test_a_function_may_open_a_capture_and_be_compiled(model: nn.Module) -> None:
    def step(x: torch.Tensor) -> tuple[torch.Tensor, nntap.Cache]:
        with capture as cache:
            out = model(x)
        return out, cache

    capture = nntap.capture(model)
    compiled = torch.compile(step, backend=Compiler())
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler tells what it leaves to Python
            out, cache = compiled(X)
        assert torch.equal(cache[""].output, out)
        assert len(cache) == len(list(model.modules()))
    assert hooks_of(model) == []


@pytest.mark.parametrize("inner", ["", "with nntap.capture(other): other(x)"], ids=["alone", "beside another capture"])
def test_the_first_use_of_the_compiler_inside_a_block_is_said(inner: str) -> None:
    script = f"""
        import sys, warnings, torch, nntap
        model, other, x = torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Identity(), torch.ones(1, 2)
        assert "torch._dynamo" not in sys.modules
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with nntap.capture(model):
                torch.compile(model, backend="eager")(x)
                {inner}
        print(*[(w.category.__name__, w.filename) for w in said if "first used inside" in str(w.message)])
    """
    assert_script_runs(script, says="('RuntimeWarning', '<string>')")


def test_a_copy_made_inside_the_block_carries_no_tap(model: nn.Module) -> None:
    with nntap.capture(model) as cache:
        twin = copy.deepcopy(model)
        assert hooks_of(twin) == []
        twin(X)
    assert len(cache) == 0


def test_several_devices_of_data_parallel_are_refused(model: nn.Module) -> None:
    parallel = nn.DataParallel(model)
    parallel.device_ids = [0, 1]
    with pytest.raises(ValueError, match=r"DataParallel.*model\.module"):
        nntap.capture(parallel)
    nntap.capture(parallel.module)


def test_what_only_loads_the_compiler_is_not_said() -> None:
    script = """
        import sys, warnings, torch, nntap
        model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        x = torch.ones(1, 2)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with nntap.capture(model):
                torch.func.jvp(model, (x,), (x,))
                import torch._dynamo  # the line before does this from torch 2.6 on
        print("torch._dynamo" in sys.modules, [str(w.message) for w in said if "nntap" in str(w.message)])
    """
    assert_script_runs(script, says="True []")
