"""How alike two sentences are in every layer: the cosine of their mean-pooled hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nntap.demo.record import Layer
from nntap.demo.texts import Pair


@dataclass(frozen=True)
class Similarity:
    """`values[layer][pair]` is a cosine between -1 and 1."""

    layers: tuple[str, ...]
    pairs: tuple[Pair, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """The headings of the pairs, in order."""
        return tuple(dict.fromkeys(pair.group for pair in self.pairs))

    def of_group(self, group: str) -> list[list[float]]:
        """The cosines of the pairs under one heading: a list of pairs for every layer."""
        chosen = [index for index, pair in enumerate(self.pairs) if pair.group == group]
        return [[row[index] for index in chosen] for row in self.values]

    def means(self, group: str) -> list[float]:
        """The mean cosine of the pairs under one heading, for every layer."""
        return [sum(row) / len(row) for row in self.of_group(group)]


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over the tokens, without padding.

    Args:
        hidden: [sentences, tokens, width], any floating dtype.
        mask: [sentences, tokens], 1 for a token and 0 for padding.

    Returns:
        float32 [sentences, width].
    """
    weights = mask.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)


def compare(layers: Sequence[Layer], mask: torch.Tensor, sentences: Sequence[str], pairs: Sequence[Pair]) -> Similarity:
    """The cosine of every pair in every layer. `sentences` are the rows of the batch."""
    row = {sentence: index for index, sentence in enumerate(sentences)}
    firsts = [row[pair.first] for pair in pairs]
    seconds = [row[pair.second] for pair in pairs]
    values = []
    for layer in layers:
        pooled = masked_mean(layer.hidden, mask)
        cosines: list[float] = F.cosine_similarity(pooled[firsts], pooled[seconds], dim=-1).tolist()
        values.append(tuple(cosines))
    return Similarity(tuple(layer.name for layer in layers), tuple(pairs), tuple(values))
