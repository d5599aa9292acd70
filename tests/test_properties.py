"""Each property broken on purpose: the check that the other tests use must notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import assert_cast_is, assert_nest_is, assert_tensor_is, hooks_of, record, structure_of
from nntap import options, standalone
from nntap.hooks import InstalledHooks
from nntap.records import LiveRecords


def alias(*_: Any) -> Any:
    """Instead of `slow_snapshot`: hands out the tensor itself."""
    return lambda tensor: tensor.detach()


def test_a_record_that_is_an_alias_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        tensor = torch.ones([1] * 9)
        expected = tensor.clone()
        read, _ = record(tensor)
        tensor.zero_()
        assert_tensor_is(read, expected)

    check()
    monkeypatch.setattr(options, "slow_snapshot", alias)
    with pytest.raises(AssertionError):
        check()


def test_a_container_kept_by_reference_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from strategies import Pair

    def check() -> None:
        tensor = torch.ones(2)
        value = Pair(tensor, None)
        clones, structure = [tensor.clone()], structure_of(value)
        read, _ = record(value)
        tensor.zero_()
        assert_nest_is(read, structure, clones)

    check()
    monkeypatch.setattr(options, "rebuild", lambda value, walk: value)
    with pytest.raises(AssertionError):
        check()


def test_a_container_of_another_type_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from strategies import Pair

    value = Pair(1, 2)
    assert_nest_is(record(value)[0], structure_of(value), [])
    monkeypatch.setattr(options, "rebuild", lambda value, walk: tuple(value))
    with pytest.raises(AssertionError):
        assert_nest_is(record(value)[0], structure_of(value), [])


def test_hooks_left_on_the_model_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    left: list[InstalledHooks] = []
    with monkeypatch.context() as broken, nntap.capture(model, include_inputs=True):
        broken.setattr(InstalledHooks, "remove", lambda self: left.append(self))
    assert hooks_of(model) != []
    left[0].remove()
    assert hooks_of(model) == []


def test_hooks_left_when_a_block_raises_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = standalone.capture.__exit__

    def leave_unless_it_raises(self: Any, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            leave(self, kind, error, traceback)

    monkeypatch.setattr(standalone.capture, "__exit__", leave_unless_it_raises)
    model = nn.Linear(2, 2)
    capture = nntap.capture(model)
    with pytest.raises(ValueError), capture:
        raise ValueError
    assert hooks_of(model) != []
    leave(capture, None, None, None)
    assert hooks_of(model) == []


@pytest.mark.parametrize("spoil", [lambda t: t.add_(1), lambda t: t.t(), lambda t: t.double(), lambda t: t[:2]])
def test_wrong_bytes_strides_dtypes_and_shapes_are_noticed(spoil: Any) -> None:
    tensor = torch.randn(3, 4)
    with pytest.raises(AssertionError):
        assert_tensor_is(spoil(tensor.clone()), tensor)


def test_one_wrong_bit_in_a_cast_is_noticed() -> None:
    right = torch.randn(300).half()
    wrong = right.clone()
    wrong.view(torch.int16)[257] ^= 1
    assert_cast_is(right.clone(), right)
    with pytest.raises(AssertionError, match="1 differ, first at 257"):
        assert_cast_is(wrong, right)


def test_a_zero_of_the_wrong_sign_in_a_cast_is_noticed() -> None:
    with pytest.raises(AssertionError):
        assert_cast_is(-torch.zeros(2), torch.zeros(2))


def test_memory_that_does_not_come_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        before = nntap.pool_stats()["used_bytes"]
        read, _ = record(torch.ones(1000))
        assert nntap.pool_stats()["used_bytes"] > before
        del read
        assert nntap.pool_stats()["used_bytes"] == before

    check()
    kept = []
    read_output = LiveRecords.output

    def read_and_keep(self: LiveRecords, path: str, visit: int) -> Any:
        kept.append(read_output(self, path, visit))
        return kept[-1]

    monkeypatch.setattr(LiveRecords, "output", read_and_keep)
    with pytest.raises(AssertionError):
        check()
