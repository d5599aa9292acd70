"""The models that are recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.setting import Setting
from benchmarks.models import with_random_weights


class Gives(nn.Module):
    """Gives back what its function makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self) -> Any:
        return self.make()


@lru_cache(maxsize=1)  # several cases run it, and making it takes seconds
def llama(setting: Setting) -> Any:
    """A Llama of the size of Llama-3.1-8B (or a tiny one) with random weights, bfloat16, made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = setting.sizes
    config = LlamaConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.hidden * 7 // 2,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=max(1, sizes.heads // 4),
        vocab_size=sizes.vocabulary,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    return with_random_weights(lambda: LlamaForCausalLM(config), str(setting.device), torch.bfloat16)


def tokens(setting: Setting, shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, setting.sizes.vocabulary, shape, generator=generator).to(setting.device)
