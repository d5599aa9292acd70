"""What the demo looks at: a model, and what turns text into its inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Batch:
    """The inputs of one forward.

    `inputs` are the keyword arguments of the model; every tensor is [sentences, tokens].
    `mask` is int64 [sentences, tokens]: 1 for a token, 0 for padding.
    """

    inputs: dict[str, torch.Tensor]
    mask: torch.Tensor


@dataclass(frozen=True)
class Subject:
    """A model on the CPU in eval mode.

    `causal`: it predicts the next token, so the logit lens can read it. `decode` turns a token id into text.
    `notes`: what the user has to know before believing a number, e.g. that the weights are random.
    """

    title: str
    model: nn.Module
    encode: Callable[[Sequence[str]], Batch]
    causal: bool = False
    decode: Callable[[int], str] | None = None
    random_weights: bool = False
    notes: tuple[str, ...] = ()


def twin(model: nn.Module) -> nn.Module:
    """A second module tree on the same weights: some libraries change every module they touch."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def mask_of(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """The mask of a batch; all ones where the tokeniser gives none."""
    return torch.ones_like(input_ids) if attention_mask is None else attention_mask
