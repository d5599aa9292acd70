"""Folders with small models of random weights, and a tokeniser, as `--model` takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BYTES = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
END = "<|endoftext|>"
VOCABULARY = len(BYTES) + 1


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokeniser, made without any download: one token a byte."""
    tokenizer = Tokenizer(models.BPE({**BYTES, END: len(BYTES)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": len(BYTES),
    "eos_token_id": len(BYTES),
}
NARROW = {**SIZES, "intermediate_size": 64, "initializer_range": 0.4}
CAUSAL: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=64,
            initializer_range=0.4,
            bos_token_id=len(BYTES),
            eos_token_id=len(BYTES),
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**NARROW)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**NARROW, num_key_value_heads=2)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**NARROW, num_key_value_heads=2)),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NARROW)),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, init_std=0.4)
    ),
    "opt_narrow_embeddings": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=16, init_std=0.4)
    ),
}


def causal_folder(kind: str, folder: Path) -> Path:
    torch.manual_seed(3)
    CAUSAL[kind]().eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
