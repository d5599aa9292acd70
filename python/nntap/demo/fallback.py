"""The model to use where the weights package, or transformers, is missing: small, with random weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from nntap.demo.extras import INSTALL, WEIGHTS_PACKAGE, has
from nntap.demo.subject import Batch, Subject

SEED = 0
WIDTH = 64
HEADS = 4
LAYERS = 4
MAX_BYTES = 128
PADDING = 256  # one more than the largest byte
VOCABULARY = PADDING + 1
RANDOM = "Its weights are random: the times and bytes are real, the similarities mean nothing."


def random_subject() -> Subject:
    """A small BERT built from a config, or without transformers a `torch.nn.TransformerEncoder`."""
    missing = f"the package {WEIGHTS_PACKAGE}" if has("transformers") else "transformers"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _bert() if has("transformers") else TinyEncoder()
    return Subject(
        title=f"a small {type(model).__name__} with random weights",
        model=model.eval(),
        encode=encode_bytes,
        random_weights=True,
        notes=(
            f"The default model needs {missing}, which is not installed. To get it: {INSTALL}",
            RANDOM,
        ),
    )


def encode_bytes(sentences: Sequence[str]) -> Batch:
    """One token a byte of the UTF-8 text, at most `MAX_BYTES`, padded on the right."""
    rows = [list(sentence.encode("utf-8")[:MAX_BYTES]) for sentence in sentences]
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [PADDING] * (width - len(row)) for row in rows])
    mask = (ids != PADDING).long()
    return Batch({"input_ids": ids, "attention_mask": mask}, mask)


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=MAX_BYTES,
        pad_token_id=PADDING,
    )
    model: nn.Module = BertModel(config)
    return model


class TinyEncoder(nn.Module):
    """Bytes in, hidden states [sentences, tokens, WIDTH] out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.positions = nn.Embedding(MAX_BYTES, WIDTH)
        # silu keeps torch off its fused kernel, which it uses only without hooks: the bare forward does the same work
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, activation=F.silu, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.tokens(input_ids) + self.positions.weight[: input_ids.shape[1]]
        output: torch.Tensor = self.encoder(hidden, src_key_padding_mask=attention_mask == 0)
        return output
