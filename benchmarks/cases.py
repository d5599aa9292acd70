"""What is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks import models
from benchmarks.contestants import BARE, CAPTURE, CONTESTANTS, NNSIGHTS, ON_NNTAP, SAVES, Request
from benchmarks.models import Subject, Tokens

EVERYBODY = tuple(contestant.name for contestant in CONTESTANTS)
HEADLINERS = (BARE, CAPTURE, ON_NNTAP, NNSIGHTS)
SAVERS = (BARE, CAPTURE, ON_NNTAP, *SAVES)
MAIN = (*HEADLINERS, "hooks with .cpu()", "hooks with a copy", "hooks with pinned copies")


@dataclass(frozen=True)
class Case:
    """One model, one thing to record, and who records it.

    Attributes:
        steps: New tokens, where it is a generation.
        headline: It is in the README's table.
        quick: It is in the short run.
        budget_seconds: Of the clock, in each process that measures it.
        devices: Where it is measured.
    """

    key: str
    title: str
    subject: Callable[[str], Subject]
    request: Callable[[Subject], Request]
    contestants: tuple[str, ...] = EVERYBODY
    steps: int | None = None
    headline: bool = False
    quick: bool = False
    budget_seconds: float = 3.0
    devices: tuple[str, ...] = ("cpu", "cuda")


def everything(subject: Subject) -> Request:
    return Request()


def as_float16(subject: Subject) -> Request:
    return Request(dtype=torch.float16)


def layers(subject: Subject) -> Request:
    return Request(modules=subject.layers)


def _headlines() -> Iterator[Case]:
    yield Case(
        key="tiny-all",
        title="every module of a 12-layer GPT-2, 32 wide, 10 tokens",
        subject=lambda device: models.tiny_gpt2(device=device),
        request=everything,
        headline=True,
        quick=True,
        budget_seconds=20.0,
    )
    # nnsight's cache and `.save()` in cases of their own: each leaves malloc with memory that the other then finds.
    for key, contestants in (("", HEADLINERS), ("-save", SAVERS)):
        yield Case(
            key=f"blocks-all-float16{key}",
            title="every module of 12 wide layers (444 MiB a forward), as float16",
            subject=lambda device: models.blocks(device=device),
            request=as_float16,
            contestants=contestants,
            headline=True,
            budget_seconds=20.0,
        )
        yield Case(
            key=f"blocks-layers-float16{key}",
            title="the 12 layers of that model, as float16",
            subject=lambda device: models.blocks(device=device),
            request=lambda subject: Request(modules=subject.layers, dtype=torch.float16),
            contestants=contestants,
            headline=True,
            budget_seconds=40.0,  # what is added is a tenth of a run's own noise
        )


def _models() -> Iterator[Case]:
    yield Case(
        key="in-place",
        title="every module of 4 blocks with in-place operations",
        subject=lambda device: models.in_place(device=device),
        request=everything,
        quick=True,
        budget_seconds=0.5,
    )
    yield Case(
        key="gpt2-all-float16",
        title="every module of GPT-2 small's shape, 512 tokens, as float16",
        subject=lambda device: models.gpt2_small(Tokens(512), device),
        request=as_float16,
        contestants=MAIN,
        budget_seconds=20.0,
    )
    yield Case(
        key="gpt2-layers",
        title="the 12 layers of GPT-2 small's shape, 64 tokens",
        subject=lambda device: models.gpt2_small(Tokens(64), device),
        request=layers,
        budget_seconds=10.0,
    )
    yield Case(
        key="llama1b-all",
        title="every module of Llama 1B's shape, bfloat16, 16 tokens",
        subject=lambda device: models.llama_1b(Tokens(16), device),
        request=everything,
        contestants=MAIN,
        budget_seconds=10.0,
    )
    yield Case(
        key="llama8b-layers",
        title="the 32 layers of Llama 8B's shape, bfloat16, 8 x 1024 tokens",
        subject=lambda device: models.llama_8b(Tokens(1024, batch=8), device),
        request=layers,
        contestants=MAIN,
        devices=("cuda",),
    )
    yield Case(
        key="resnet50-layers",
        title="the 16 bottlenecks of a ResNet-50, 2 images",
        subject=lambda device: models.resnet50(batch=2, device=device),
        request=layers,
        budget_seconds=5.0,
    )
    yield Case(
        key="minilm-all",
        title="every module of MiniLM, real weights, the demo's sentences",
        subject=lambda device: models.minilm(device),
        request=everything,
    )


def _what() -> Iterator[Case]:
    """From one module to everything that goes in and comes out."""
    kinds: tuple[tuple[str, str, Callable[[Subject], Request]], ...] = (
        ("one", "one layer", lambda subject: Request(modules=subject.layers[:1])),
        ("layers", "the 12 layers", layers),
        ("inputs", "every module with its inputs", lambda subject: Request(inputs=True)),
    )
    for key, title, request in kinds:
        yield Case(
            key=f"tiny-{key}",
            title=f"{title} of a 12-layer GPT-2, 32 wide",
            subject=lambda device: models.tiny_gpt2(device=device),
            request=request,
        )


def _sizes() -> Iterator[Case]:
    shape = {"n_embd": 128, "n_head": 4, "vocab_size": 64, "n_layer": 4}
    for tokens in (Tokens(1), Tokens(16), Tokens(128), Tokens(1024), Tokens(1024, batch=8)):
        count = tokens.length * tokens.batch
        yield Case(
            key=f"tokens-{count}",
            title=f"every module of a 4-layer GPT-2, 128 wide, {count} {'token' if count == 1 else 'tokens'}",
            subject=lambda device, tokens=tokens: models.gpt2("GPT-2, 4 layers", tokens, device, **shape),
            request=everything,
            contestants=MAIN,
        )
    for width in (64, 256, 1024):
        wide = shape | {"n_embd": width}
        yield Case(
            key=f"width-{width}",
            title=f"every module of a 4-layer GPT-2, {width} wide, 64 tokens",
            subject=lambda device, wide=wide: models.gpt2("GPT-2, 4 layers", Tokens(64), device, **wide),
            request=everything,
            contestants=MAIN,
        )


def _dtypes() -> Iterator[Case]:
    shape = {"n_embd": 256, "n_head": 4, "vocab_size": 64, "n_layer": 4}
    f16, f32, bf16 = torch.float16, torch.float32, torch.bfloat16
    for own, kept in ((f32, None), (f32, f16), (f32, bf16), (bf16, None), (bf16, f16)):
        name, target = str(own).removeprefix("torch."), str(kept or own).removeprefix("torch.")
        yield Case(
            key=f"dtype-{name}-{target}",
            title=f"every module of a {name} GPT-2, 256 wide, 256 tokens, as {target}",
            subject=lambda device, own=own: models.gpt2("GPT-2, 4 layers", Tokens(256), device, own, **shape),
            request=lambda subject, kept=kept: Request(dtype=kept),
            contestants=MAIN,
            quick=kept is f16 and own is f32,
        )
    yield Case(
        key="device-none",
        title="every module of a GPT-2, 256 wide, 256 tokens, left on its device",
        subject=lambda device: models.gpt2("GPT-2, 4 layers", Tokens(256), device, **shape),
        request=lambda subject: Request(device=None),
    )


def _generation() -> Iterator[Case]:
    """What a step costs must not grow with the number of steps before it."""
    for steps in (8, 32, 128):
        yield Case(
            key=f"generate-{steps}",
            title=f"every module of a 12-layer GPT-2, 32 wide, {steps} new tokens",
            subject=lambda device, steps=steps: models.tiny_gpt2(device=device).generating(steps),
            request=everything,
            contestants=MAIN,
            steps=steps,
            quick=steps == 8,
        )


CASES = (*_headlines(), *_models(), *_what(), *_sizes(), *_dtypes(), *_generation())


def find(key: str) -> Case:
    return next(case for case in CASES if case.key == key)
