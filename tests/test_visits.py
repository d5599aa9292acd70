"""Which calls of which modules are recorded: recursive, shared, looped and failing calls, and their inputs."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Give, Model


@pytest.fixture
def model() -> Model:
    return Model().eval()


class Countdown(nn.Module):
    """Calls itself."""

    def forward(self, n: int) -> torch.Tensor:
        return torch.tensor(n) if n == 0 else self(n - 1) + n


def test_a_module_that_calls_itself_has_its_inputs_paired_with_its_outputs() -> None:
    model = Countdown()
    with nntap.capture(model, include_inputs=True) as cache:
        model(3)
    calls = {entry.input: entry.output.item() for entry in cache[""]}
    assert calls == {3: 6, 2: 3, 1: 1, 0: 0}


def test_a_call_that_raises_and_is_caught_does_not_take_another_call_s_output() -> None:
    class Careful(nn.Module):
        def forward(self, n: int) -> torch.Tensor:
            if n == 0:
                raise ValueError
            with contextlib.suppress(ValueError):
                self(n - 1)
            return torch.tensor(n)

    model = Careful()
    with nntap.capture(model, include_inputs=True) as cache:
        model(2)
        with pytest.raises(ValueError):
            model(0)
        model(1)
    calls = [(entry.input, None if entry.output is None else entry.output.item()) for entry in cache[""]]
    assert calls == [(2, 2), (1, 1), (0, None), (0, None), (1, 1), (0, None)]


class Shared(nn.Module):
    """One module at two places, and called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.nested = nn.ModuleDict({"again": self.a, "own": nn.ReLU()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nested["own"](self.nested["again"](self.b(self.a(x))))


def test_a_shared_module_has_the_records_of_all_its_places_under_its_first_path() -> None:
    model = Shared()
    x = torch.randn(2, 4)
    with nntap.capture(model) as cache:
        model(x)
    assert cache.keys() == ["a", "nested.own", ""]
    assert len(cache["a"]) == 3
    for path in ("b", "nested.again"):
        assert all(one is two for one, two in zip(cache[path].output, cache["a"].output, strict=True))
    assert torch.equal(cache["a"][2].output, model.a(model.a(model.a(x))))
    assert cache.b[1].output is cache["a"][1].output


@pytest.mark.parametrize("place", ["a", "b", "nested.again"])
def test_a_shared_module_may_be_selected_at_any_of_its_places(place: str) -> None:
    model = Shared()
    with nntap.capture(model, place) as cache:
        model(torch.randn(2, 4))
    assert cache.keys() == ["a"]


def test_a_looped_module_is_seen_once_a_step() -> None:
    cell = nn.GRUCell(3, 3)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = torch.zeros(2, 3)
            for step in x:
                state = self.cell(step, state)
            return state

    x = torch.randn(5, 2, 3)
    loop = Loop()
    with nntap.capture(loop, include_inputs=True) as cache:
        out = loop(x)
    assert len(cache["cell"]) == 5
    for step, entry in enumerate(cache["cell"]):
        assert torch.equal(entry.input, x[step])
    assert torch.equal(cache.cell[-1].output, out)
    assert torch.equal(cache.cell[3].output, cache.cell[4].inputs[0][1])


def test_a_module_that_holds_itself_is_selected_once() -> None:
    model = nn.Identity()
    model._modules["self"] = model
    with nntap.capture(model) as cache:
        model(torch.ones(1))
    assert cache.keys() == [""]
    assert torch.equal(cache["self"].output, torch.ones(1))


# ---- inputs ----


def test_inputs_are_those_before_an_in_place_module_edits_them() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Hardtanh(-0.1, 0.1, inplace=True))
    x = torch.randn(4, 3)
    hidden = model[0](x).detach()
    with nntap.capture(model, include_inputs=True) as cache:
        model(x)
    assert torch.equal(cache["0"].output, hidden)
    assert torch.equal(cache["1"].input, hidden)
    assert torch.equal(cache["1"].output, hidden.relu())
    assert torch.equal(cache["2"].input, hidden.relu())
    assert torch.equal(cache["2"].output, hidden.relu().clamp(-0.1, 0.1))


def test_inputs_are_args_and_kwargs(model: Model) -> None:
    with nntap.capture(model, "layers.*", include_inputs=True) as cache:
        model(IDS)
    args, kwargs = cache["layers.1"].inputs
    assert kwargs == {"scale": 0.5}
    assert len(args) == 1
    assert torch.equal(args[0], cache["layers.0"].output)
    assert cache["layers.1"].input is cache["layers.1"].inputs[0][0]


def test_inputs_alone_may_be_recorded(model: Model) -> None:
    with nntap.capture(model, "layers.0", include_inputs=True, include_output=False) as cache:
        model(IDS)
        model(IDS)
    assert len(cache["layers.0"]) == 2
    assert cache["layers.0"].output == [None, None]
    assert [tuple(x.shape) for x in cache["layers.0"].input] == [(1, 3, 4)] * 2


def test_a_module_without_arguments_has_no_input() -> None:
    model = Give(lambda: 3)
    with nntap.capture(model, include_inputs=True) as cache:
        model()
    assert cache[""].inputs == ((), {})
    assert cache[""].input is None
    assert cache[""].output == 3
