"""What `repr` of caches, views and entries says, word for word."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Give, Model
from nntap.show import MOST_ROWS, describe


def recorded(model: nn.Module, *args: Any, times: int = 1, **options: Any) -> nntap.Cache:
    with nntap.capture(model, **options) as cache:
        for _ in range(times):
            model(*args)
    return cache


def assert_shows(thing: object, text: str) -> None:
    assert repr(thing) == textwrap.dedent(text).strip("\n")


ONE = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ONE, "float32 [2, 3]"),
        (torch.tensor(True), "bool []"),
        ((ONE, None), "(float32 [2, 3], None)"),
        ([ONE, 1.5], "[float32 [2, 3], 1.5]"),
        ({"logits": ONE, "loss": None}, "{logits: float32 [2, 3], loss: None}"),
        ([1, 2, 3, 4], "[1, 2, 3, 4]"),
        ([1, 2, 3, 4, 5, 6], "[1, 2, 3, 4, ... 2 more]"),
        ("x" * 28, f"'{'x' * 28}'"),
        ("x" * 29, "str"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_value_is_described_in_a_few_words(value: Any, text: str) -> None:
    assert describe(value) == text


def test_an_entry() -> None:
    cache = recorded(Give(lambda: (ONE, 2)), include_inputs=True)
    assert_shows(cache[""][0], "Entry(output=(float32 [2, 3], 2), inputs=((), {}))")
    assert_shows(recorded(Give(lambda: None))[""][0], "Entry(output=None)")


def test_a_view() -> None:
    once, twice = recorded(nn.Sequential(nn.ReLU()), ONE), recorded(nn.Sequential(nn.ReLU()), ONE, times=2)
    assert_shows(once["0"], "CacheView('0', output=float32 [2, 3])")
    assert_shows(twice["0"], "CacheView('0', seen 2 times, first: output=float32 [2, 3])")


def test_a_place_with_records_below_it_is_a_table() -> None:
    cache = recorded(Model(blocks=1), IDS, modules=["layers.*", "heads.*"])
    assert_shows(
        cache.heads,
        """
        CacheView('heads'), 2 modules below
          heads.a  float32 [1, 3, 2]
          heads.b  float32 [1, 3, 3]
        """,
    )


def test_a_cache_is_a_table_of_its_modules() -> None:
    model = nn.Sequential(nn.Linear(3, 200), Give(lambda: (ONE, None)))
    cache = recorded(model, torch.ones(1, 3), times=2)
    assert_shows(
        cache,
        """
        Cache: 3 modules, 1.7 KiB recorded
          0            float32 [1, 200]  x2
          1            (float32 [2, 3], None)  x2
          (the model)  (float32 [2, 3], None)  x2
        """,
    )


def test_inputs_are_shown_where_there_are_no_outputs() -> None:
    cache = recorded(nn.Identity(), ONE, include_inputs=True, include_output=False)
    assert_shows(cache, "Cache: 1 modules, 24 B recorded\n  (the model)  ((float32 [2, 3]), {})")


def test_an_empty_cache() -> None:
    assert_shows(recorded(nn.Identity(), times=0), "Cache: 0 modules, 0 B recorded")


def test_the_rows_beyond_the_first_are_counted() -> None:
    cache = recorded(nn.Sequential(*(nn.Identity() for _ in range(MOST_ROWS + 4))), ONE)
    lines = repr(cache).split("\n")
    assert len(lines) == 1 + MOST_ROWS + 1
    assert lines[-2:] == ["  19  float32 [2, 3]", "  ... and 5 more: see .keys()"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(1023, "1023 B"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"), (5 << 30, "5.0 GiB"), (5 << 40, "5120.0 GiB")],
)
def test_sizes(size: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nntap.Cache, "stats", nntap.Stats(bytes_recorded=size))
    assert_shows(recorded(nn.Identity(), times=0), f"Cache: 0 modules, {text} recorded")
