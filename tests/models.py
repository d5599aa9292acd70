"""Models for nnsight, from configs and with random weights: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from nnsight import LanguageModel, NNsight, VisionLanguageModel
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    ResNetConfig,
    ResNetModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from gpt2 import gpt2, tokenizer

PROMPT = "The Eiffel Tower is in the city of"  # ten tokens, as GPT-2's own tokenizer makes of it


def gpt2_language_model(full_size: bool = False, layers: int = 12, **options: Any) -> LanguageModel:
    """The `LanguageModel` of nnsight's guide."""
    return LanguageModel(gpt2(full_size, layers), tokenizer=tokenizer(), **options)


def t5_language_model() -> LanguageModel:
    """An encoder-decoder."""
    torch.manual_seed(0)
    config = T5Config(
        **{"vocab_size": 64, "d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4},
        **{"pad_token_id": 0, "eos_token_id": None, "decoder_start_token_id": 0},
    )
    return LanguageModel(T5ForConditionalGeneration(config).eval(), tokenizer=tokenizer())


_NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_SMALL_IMAGE = {"image_size": 16, "patch_size": 8}


def llava_vision_language_model() -> VisionLanguageModel:
    """A model of images and text, with the processor of both."""
    torch.manual_seed(0)
    text = tokenizer()
    text.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_NARROW, **_SMALL_IMAGE),
        text_config=LlamaConfig(
            **_NARROW, vocab_size=64, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=None
        ),
        image_token_index=text.convert_tokens_to_ids("<image>"),
    )
    # transformers 5 has one image processor that needs no torchvision, under a name of its own.
    newer = hasattr(transformers, "CLIPImageProcessorPil")
    images = transformers.CLIPImageProcessorPil if newer else transformers.CLIPImageProcessor
    size = {"height": 16, "width": 16}
    processor = LlavaProcessor(
        image_processor=images(size=size, crop_size=size),
        tokenizer=text,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return VisionLanguageModel(LlavaForConditionalGeneration(config).eval(), tokenizer=text, processor=processor)


def vit(**options: Any) -> NNsight:
    """A vision transformer, under nnsight."""
    torch.manual_seed(0)
    return NNsight(ViTModel(ViTConfig(**_NARROW, **_SMALL_IMAGE)).eval(), **options)


def resnet(**options: Any) -> NNsight:
    """A convolutional network that adds in place, under nnsight."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic")
    return NNsight(ResNetModel(config).eval(), **options)


class InPlace(nn.Module):
    """Four blocks whose activation functions overwrite what the layers before them gave back."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.up = nn.Linear(width, width)
            self.act = nn.ReLU(inplace=True)
            self.drop = nn.Dropout()

        def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
            return self.drop(self.act(self.up(x))).mul_(scale)

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.Block(width) for _ in range(4))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head(x), {"hidden": x}


def in_place(**options: Any) -> NNsight:
    """A plain module with in-place operations, under nnsight."""
    torch.manual_seed(0)
    return NNsight(InPlace().eval(), **options)


class Looped(nn.Module):
    """A cell that is called three times, with a keyword argument, and gives back a nest."""

    class Cell(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.mix = nn.Linear(width, width)

        def forward(self, x: torch.Tensor, *, state: torch.Tensor) -> dict[str, Any]:
            mixed = torch.tanh(self.mix(x) + state)
            return {"x": mixed, "state": (state + 1, ["a note"])}

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width)
        self.cell = self.Cell(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        state, out = torch.zeros(()), {}
        x = self.embed(x)
        for _ in range(3):
            out = self.cell(x, state=state)
            x, (state, _) = out["x"], out["state"]
        return self.head(x), out


def looped(**options: Any) -> NNsight:
    """A plain module with a loop, under nnsight."""
    torch.manual_seed(0)
    return NNsight(Looped().eval(), **options)
