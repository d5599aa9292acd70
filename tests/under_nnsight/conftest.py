"""What every test under nnsight gets: nntap installed, and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import models
import nntap


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with nntap.installed():
        yield


@pytest.fixture(scope="module")
def gpt2() -> Any:
    """nnsight's LanguageModel around a narrow GPT-2 of twelve layers."""
    return models.gpt2_language_model()


@pytest.fixture
def in_place() -> Any:
    """NNsight around a plain module whose operations overwrite their inputs."""
    return models.in_place()
