"""What the tests of the demo share: few rounds, the demo's own result, a small GPT-2, packages that are hidden."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from made_folders import causal_folder

from nntap import demo
from nntap.demo import timing


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's rounds are for its times, which no test looks at."""
    monkeypatch.setattr(timing, "MIN_ROUNDS", 2)
    monkeypatch.setattr(timing, "MAX_ROUNDS", 2)


@pytest.fixture(scope="module")
def minilm() -> demo.DemoResult:
    return demo.run()


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`hide("rich")`: the package cannot be found any more."""
    real = importlib.util.find_spec

    def hide(*names: str) -> None:
        def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name in names else real(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hide
