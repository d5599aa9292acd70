"""A GPT-2 with random weights, and a tokenizer made here: neither needs nnsight, and nothing is downloaded."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

_SPECIAL = ["<pad>", "<unk>", "<end>"]
_WORDS = "The Tower is in the city of Madison Square Garden Colosseum New York Rome Paris a and"
_PIECES = ["E", "##iff", "##el", *_WORDS.split()]


def tokenizer() -> PreTrainedTokenizerFast:
    """Splits known words into pieces; pads on the left, as a language model needs it."""
    vocabulary = {piece: number for number, piece in enumerate([*_SPECIAL, *_PIECES])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix="##"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def gpt2(full_size: bool = False, layers: int = 12) -> GPT2LMHeadModel:
    """GPT-2 in its full size (768 wide, 12 layers) or narrow."""
    torch.manual_seed(0)
    # The tokenizer's ids, so that generation pads and never ends early.
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": None}
    narrow = {"n_embd": 32, "n_layer": layers, "n_head": 4, "vocab_size": 64, "n_positions": 64}
    config = GPT2Config(**tokens) if full_size else GPT2Config(**narrow, **tokens)
    return GPT2LMHeadModel(config).eval()
