"""What is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from benchmarks import models
from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP, Request
from benchmarks.models import Subject

HEADLINERS = (BARE, CAPTURE, ON_NNTAP, NNSIGHTS)


@dataclass(frozen=True)
class Case:
    """One model, one thing to record, and who records it.

    `targets`: the largest part of what nnsight's own cache adds that a contestant should add.
    `headline` cases are in the README's table. `budget_seconds` are those of each of `run.PROCESSES`.
    """

    key: str
    title: str
    subject: Callable[[str], Subject]
    request: Callable[[Subject], Request]
    contestants: tuple[str, ...] = HEADLINERS
    targets: Mapping[str, float] = field(default_factory=dict)
    headline: bool = False
    quick: bool = False
    budget_seconds: float = 10.0


CASES = (
    Case(
        key="tiny-all",
        title="every module of a 12-layer GPT-2, 32 wide, 10 tokens",
        subject=lambda device: models.tiny_gpt2(device=device),
        request=lambda subject: Request(),
        targets={ON_NNTAP: 0.6, CAPTURE: 0.35},
        headline=True,
        quick=True,
    ),
    Case(
        key="blocks-all-float16",
        title="every module of 12 wide layers, float16",
        subject=lambda device: models.residual_blocks(device=device),
        request=lambda subject: Request(dtype=torch.float16),
        targets={ON_NNTAP: 0.35, CAPTURE: 0.35},
        headline=True,
    ),
    Case(
        key="blocks-float16",
        title="the 12 layers themselves, float16",
        subject=lambda device: models.residual_blocks(device=device),
        request=lambda subject: Request(modules=subject.layers, dtype=torch.float16),
        targets={ON_NNTAP: 0.35, CAPTURE: 0.35},
        headline=True,
    ),
    Case(
        key="gpt2-all-float16",
        title="every module of GPT-2 small's shape, 512 tokens, float16",
        subject=lambda device: models.gpt2_small(512, device=device),
        request=lambda subject: Request(dtype=torch.float16),
        headline=True,
        budget_seconds=30.0,
    ),
)
