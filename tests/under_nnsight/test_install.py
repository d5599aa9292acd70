"""Putting nntap under nnsight and taking it back, and what is said when it does not fit or the input is bad."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Any

import nnsight
import pytest
import torch
from torch import nn

import nntap
from nntap.nnsight import SUPPORTED, _adapter_name, supported_version
from nntap.nnsight.adapter import Installation

ADAPTER = import_module(f"nntap.nnsight.{_adapter_name(nnsight.__version__)}")
TRACER = ADAPTER.tracer_class()
X = torch.ones(2, 4)


@pytest.fixture(autouse=True)
def installed() -> Any:
    """Nothing is installed but by the tests themselves."""
    nntap.uninstall()
    yield
    nntap.uninstall()


def own_methods() -> dict[str, Any]:
    return {name: value for owner in ADAPTER.RELIES_ON for name, value in vars(owner).items() if callable(value)}


def kind_of_cache(model: Any) -> type:
    with model.trace(X) as tracer:
        cache = tracer.cache()
    return type(cache)


# ---- on and off ----


def test_install_and_uninstall_may_be_called_again(in_place: Any) -> None:
    before = own_methods()
    for _ in range(2):
        nntap.install()
    assert kind_of_cache(in_place) is nntap.Cache
    for _ in range(2):
        nntap.uninstall()
    assert own_methods() == before
    assert kind_of_cache(in_place) is not nntap.Cache
    nntap.install()
    assert kind_of_cache(in_place) is nntap.Cache


def test_installed_leaves_things_as_they_were(in_place: Any) -> None:
    before = own_methods()
    with nntap.installed():
        with nntap.installed():
            assert kind_of_cache(in_place) is nntap.Cache
        assert kind_of_cache(in_place) is nntap.Cache
    assert own_methods() == before
    nntap.install()
    with nntap.installed():
        pass
    assert kind_of_cache(in_place) is nntap.Cache


def test_installed_takes_it_back_when_the_block_raises() -> None:
    before = own_methods()
    with pytest.raises(ZeroDivisionError), nntap.installed():
        raise ZeroDivisionError
    assert own_methods() == before


def test_a_cache_stays_readable_when_nntap_is_uninstalled(in_place: Any) -> None:
    model = in_place
    nntap.install()
    with model.trace(X) as tracer:
        cache = tracer.cache()
    nntap.uninstall()
    assert cache.head.output.shape == (2, 3)


def test_the_method_takes_what_nnsights_own_takes() -> None:
    import inspect

    own = inspect.signature(TRACER.cache).parameters
    with nntap.installed():
        ours = inspect.signature(TRACER.cache).parameters
    assert list(own) == [name for name in ours if name in own]
    assert {name: p.default for name, p in own.items()} == {name: ours[name].default for name in own}


# ---- versions ----


@pytest.mark.parametrize("version", ["0.6.3", "0.7.0", "0.8.0", "0.8.1", "0.8.9", "0.8.2rc1"])
def test_these_versions_are_supported(version: str) -> None:
    assert supported_version(version)


@pytest.mark.parametrize("version", ["0.5.9", "0.6.2", "0.6.4", "0.6.30", "0.7.1", "0.9.0", "1.0.0", "unknown"])
def test_another_version_is_refused_with_those_that_are_supported(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own_methods()
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(nntap.UnsupportedNnsightError) as caught:
        nntap.install()
    for part in (version, SUPPORTED, "pip install", "nntap.capture"):
        assert part in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert own_methods() == before


def test_a_missing_nnsight_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(nntap.UnsupportedNnsightError, match=r"not installed.*0\.6\.3.*pip install"):
        nntap.install()


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in ADAPTER.RELIES_ON.items() for name in names]
)
def test_a_name_that_a_release_no_longer_has_is_named(owner: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A class that has the other names, but not this one.
    twin = type(owner.__name__, (), {other: None for other in ADAPTER.RELIES_ON[owner] if other != name})
    twin.__module__, twin.__qualname__ = owner.__module__, owner.__qualname__
    names = {(twin if known is owner else known): wanted for known, wanted in ADAPTER.RELIES_ON.items()}
    monkeypatch.setattr(ADAPTER, "RELIES_ON", names)
    with pytest.raises(nntap.UnsupportedNnsightError) as caught:
        Installation(ADAPTER, nnsight.__version__)
    assert f"{owner.__module__}.{owner.__qualname__}.{name}" in str(caught.value)
    assert nnsight.__version__ in str(caught.value)


def test_a_class_that_a_release_no_longer_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = own_methods()
    monkeypatch.setattr("nntap.nnsight._installation", None)
    monkeypatch.delitem(sys.modules, ADAPTER.__name__)
    monkeypatch.delattr("nnsight.intervention.batching.Batcher")
    with pytest.raises(nntap.UnsupportedNnsightError, match=rf"{nnsight.__version__} lacks.*Batcher") as caught:
        nntap.install()
    assert SUPPORTED in str(caught.value)
    assert own_methods() == before


# ---- bad input, before the model runs ----


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.linear(x)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"modules": "model.liner"}, nntap.UnknownModuleError, ["'model.liner'", "closest", "'model.linear'"]),
        ({"modules": ["linear.*.x"]}, nntap.UnknownModuleError, ["'linear.*.x'", "matches no module"]),
        ({"modules": nn.Linear(1, 1)}, nntap.UnknownModuleError, ["Linear", "no module of this model"]),
        ({"modules": [3]}, TypeError, ["modules=3", "modules= takes"]),
        ({"dtype": "float17"}, ValueError, ["dtype='float17'", "float16"]),
        ({"device": "gpu"}, ValueError, ["device='gpu'", "'cpu'"]),
        ({"device": 1.5}, TypeError, ["device=1.5"]),
        ({"include_output": False}, ValueError, ["include_output=False", "include_inputs=False"]),
        ({"detach": "no"}, TypeError, ["detach='no'", "True or False"]),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_bad_input_fails_before_the_model_runs(
    arguments: dict[str, Any], kind: type[Exception], says: list[str]
) -> None:
    nntap.install()
    module = Counting()
    model = nnsight.NNsight(module)

    def run() -> None:
        with model.trace(X) as tracer:
            tracer.cache(**arguments)

    with pytest.raises(kind) as caught:
        run()
    for part in says:
        assert part in str(caught.value)
    assert module.calls == 0
    assert kind_of_cache(model) is nntap.Cache


def test_an_envoy_of_another_model_is_refused(in_place: Any, gpt2: Any) -> None:
    nntap.install()
    model = in_place

    def run() -> None:
        with model.trace(X) as tracer:
            tracer.cache(modules=[gpt2.lm_head])

    with pytest.raises(nntap.UnknownModuleError, match="no module of this model"):
        run()


def test_outside_a_trace_it_says_where_to_call_it(in_place: Any) -> None:
    nntap.install()
    model = in_place
    with model.trace(X) as tracer:
        model.head.output.save()
    with pytest.raises(ValueError, match=r"outside a trace.*model\.trace"):
        tracer.cache()
