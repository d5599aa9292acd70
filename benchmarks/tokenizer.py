"""A tokenizer made here, for libraries that will not run a language model without one. Inputs are token ids."""

from __future__ import annotations

from typing import Any


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<pad>", eos_token="<end>")
