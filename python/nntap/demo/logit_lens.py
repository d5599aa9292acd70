"""The logit lens: what a causal model would say next if it ended after this layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from nntap.demo.blocks import readout
from nntap.demo.record import Recording


@dataclass(frozen=True)
class TopToken:
    """The likeliest next token, and its probability between 0 and 1."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class LogitLens:
    """`tokens[layer][sentence]`.

    `agrees[sentence]`: the last layer's token is the one the model itself puts first. False means that the
    model does more between its last block and its logits than the lens does.
    """

    layers: tuple[str, ...]
    sentences: tuple[str, ...]
    tokens: tuple[tuple[TopToken, ...], ...]
    agrees: tuple[bool, ...]


def read_lens(
    model: nn.Module,
    recording: Recording,
    mask: torch.Tensor,
    sentences: Sequence[str],
    decode: Callable[[int], str],
) -> LogitLens:
    """Every layer's hidden state at the last token through the final norm and the lm_head.

    Args:
        mask: [sentences, tokens]; the last 1 of a row marks its last token.
        decode: token id to text.

    Raises:
        DemoError: the model has no lm_head, or no final norm is found in it.
    """
    modules = readout(model, recording.blocks)
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    rows = torch.arange(len(sentences))
    tokens = []
    with torch.no_grad():
        for layer in recording.layers:
            value = layer.hidden[rows, last]
            for module in modules:
                value = module(value)
            tokens.append(tuple(_top(value, decode)))
    agrees = [True] * len(sentences)
    if recording.logits is not None:
        own: list[int] = recording.logits[rows, last].argmax(dim=-1).tolist()
        agrees = [top.id == token for top, token in zip(tokens[-1], own, strict=True)]
    return LogitLens(
        layers=tuple(layer.name for layer in recording.layers),
        sentences=tuple(sentences),
        tokens=tuple(tokens),
        agrees=tuple(agrees),
    )


def _top(logits: torch.Tensor, decode: Callable[[int], str]) -> list[TopToken]:
    probabilities, ids = logits.float().softmax(dim=-1).max(dim=-1)
    return [
        TopToken(index, str(decode(index)), probability)
        for index, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]
