"""Find the stack of blocks ("layers") of a model, and the way from a block's output to the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nntap.demo.errors import DemoError

# The final norm's name beside the blocks of: GPT-2, Falcon; Llama, Qwen, Mistral; GPT-NeoX, OPT; Phi; MPT
FINAL_NORMS = ("ln_f", "norm", "final_layer_norm", "final_layernorm", "norm_f")


def block_paths(model: nn.Module) -> list[str]:
    """The paths of the model's blocks, in order.

    The stack is the `ModuleList` with as many modules as the config has layers, nearest to the root. Where
    none has (ALBERT calls one block many times), it is the longest one.

    Raises:
        DemoError: the model has no `ModuleList`.
    """
    stacks = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0
    ]
    if not stacks:
        raise DemoError(f"--model: {type(model).__name__} has no nn.ModuleList, so the demo finds no layers in it.")
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    path, stack = min(
        stacks,
        key=lambda item: (len(item[1]) != count, item[0].count("."), -len(item[1])),
    )
    return [f"{path}.{index}" for index in range(len(stack))]


def output_embedding(model: nn.Module) -> nn.Module | None:
    """The lm_head of a transformers model, under whatever name it has."""
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    return head if isinstance(head, nn.Module) else None


def readout(model: nn.Module, blocks: Sequence[str]) -> list[nn.Module]:
    """What a causal model applies, in order, to its last block's output: final norm, (projection,) lm_head.

    Raises:
        DemoError: the model has no output embedding, or no final norm under a known name beside its blocks.
    """
    head = output_embedding(model)
    if head is None:
        raise DemoError(f"--model: {type(model).__name__} has no lm_head, so the logit lens cannot read it.")
    path = blocks[0].rsplit(".", 2)[0] if blocks[0].count(".") > 1 else ""
    parent = model.get_submodule(path)
    for name in FINAL_NORMS:
        norm = getattr(parent, name, None)
        if isinstance(norm, nn.Module):
            projection = getattr(parent, "project_out", None)  # OPT with embeddings narrower than its blocks
            return [norm, projection, head] if isinstance(projection, nn.Module) else [norm, head]
    raise DemoError(
        f"--model: no final norm found in {path or type(model).__name__!r}. The logit lens knows the names "
        f"{', '.join(FINAL_NORMS)}; there are: {', '.join(name for name, _ in parent.named_children())}."
    )


def hidden_state(value: object) -> torch.Tensor:
    """The hidden states [sentences, tokens, width] in what a block gave back: it, or the first item of it.

    Raises:
        DemoError: there is no such tensor.
    """
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if isinstance(value, torch.Tensor) and value.ndim == 3:
        return value
    shape = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    raise DemoError(f"--model: a layer gave {shape}; the demo reads hidden states [sentences, tokens, width].")
