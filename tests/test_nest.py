"""Containers that hold themselves."""

from __future__ import annotations

from typing import Any

import torch

from helpers import record


def test_a_dict_that_holds_itself() -> None:
    value: dict[str, Any] = {"x": torch.ones(2)}
    value["self"] = value
    read, _ = record(value)
    value["x"].zero_()
    assert read is not value
    assert read["self"] is read
    assert read["x"].tolist() == [1, 1]


def test_a_list_that_holds_itself() -> None:
    value: list[Any] = [torch.ones(2)]
    value.append((value, {"deep": value}))
    read, _ = record(value)
    value[0].zero_()
    assert read[1][0] is read[1][1]["deep"] is read
    assert read[0].tolist() == [1, 1]
