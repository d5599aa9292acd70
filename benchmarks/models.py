"""The models that are run, made from configs with random weights: nothing is downloaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


class Unsuited(Exception):
    """Something does not apply, or is not installed; says what and how to get it."""


@dataclass(frozen=True)
class Subject:
    """A model and what it is called with.

    `layers` are the paths of its blocks.
    """

    name: str
    model: nn.Module
    inputs: Mapping[str, Any]
    layers: tuple[str, ...]

    def forward(self, model: nn.Module) -> Any:
        """Runs `model`, which is the subject's own or a twin of it."""
        return model(**self.inputs)

    def module_paths(self) -> list[str]:
        return [path for path, _ in self.model.named_modules()]


def twin(model: nn.Module) -> nn.Module:
    """A second module tree on the same weights: some libraries change every module they touch."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def tiny_gpt2(tokens: int = 10, batch: int = 1, device: str = "cpu") -> Subject:
    """12 layers, 32 wide: almost only what calling modules costs."""
    return _gpt2("GPT-2, 12 layers, 32 wide", tokens, batch, device, n_embd=32, n_head=4, vocab_size=64, n_layer=12)


def gpt2_small(tokens: int = 512, batch: int = 1, device: str = "cpu") -> Subject:
    """The shape of GPT-2 small: 12 layers, 768 wide, 50257 tokens."""
    return _gpt2("GPT-2 small", tokens, batch, device)


def _gpt2(name: str, tokens: int, batch: int, device: str, **shape: int) -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_positions=max(1024, tokens), use_cache=False, **shape)
    return _causal(name, lambda: GPT2LMHeadModel(config), "transformer.h", config.n_layer, tokens, batch, device)


def _causal(
    name: str, make: Callable[[], nn.Module], blocks: str, layers: int, tokens: int, batch: int, device: str
) -> Subject:
    torch.manual_seed(0)
    with torch.device(device):
        model = make().eval()
    ids = torch.arange(batch * tokens, device=device).reshape(batch, tokens) % 50
    return Subject(
        name=name,
        model=model,
        inputs={"input_ids": ids},
        layers=tuple(f"{blocks}.{index}" for index in range(layers)),
    )


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.linear(x))


class _Blocks(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def residual_blocks(rows: int = 49_152, width: int = 64, layers: int = 12, device: str = "cpu") -> Subject:
    """Modules that give back much for what they compute: what is measured is the way of the bytes."""
    torch.manual_seed(0)
    with torch.device(device):
        model = _Blocks(width, layers).eval()
        noise = torch.randn(rows, width)
    return Subject(
        name=f"{layers} residual blocks, {width} wide",
        model=model,
        inputs={"x": noise},
        layers=tuple(f"layers.{index}" for index in range(layers)),
    )
