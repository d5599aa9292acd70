"""Record one forward with `nntap.capture`: every module's output, and the hidden states between blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

import nntap
from nntap.demo.blocks import block_paths, hidden_state, output_embedding
from nntap.demo.subject import Batch, Subject
from nntap.nest import tensors_in


@dataclass(frozen=True)
class ModuleRecord:
    """What one module gave back in one forward: the tensors in its outputs, of all its calls."""

    path: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Layer:
    """The hidden states [sentences, tokens, width] after the embeddings or after one block."""

    name: str
    hidden: torch.Tensor


@dataclass(frozen=True)
class Recording:
    """One recorded forward. `stats` are those of the capture of all modules."""

    modules: tuple[ModuleRecord, ...]
    layers: tuple[Layer, ...]
    blocks: tuple[str, ...]
    logits: torch.Tensor | None
    stats: nntap.Stats


def record_forward(subject: Subject, batch: Batch) -> Recording:
    """Run the model once under two nested captures: of every output, and of what goes into the first block.

    Raises:
        DemoError: no layers are found in the model.
    """
    model = subject.model
    blocks = block_paths(model)
    with torch.no_grad():
        with (
            nntap.capture(model) as cache,
            nntap.capture(model, blocks[0], include_output=False, include_inputs=True) as first,
        ):
            model(**batch.inputs)
    return Recording(
        modules=tuple(module_records(cache)),
        layers=tuple(_layers(cache, first, blocks)),
        blocks=tuple(blocks),
        logits=_logits(model, cache) if subject.causal else None,
        stats=cache.stats,
    )


def module_records(cache: nntap.Cache) -> Iterator[ModuleRecord]:
    """One `ModuleRecord` a module, in the order of the forward."""
    for path in cache:
        tensors = [tensor for output in outputs(cache, path) for tensor in tensors_in(output)]
        yield ModuleRecord(
            path=path,
            shapes=tuple(tuple(tensor.shape) for tensor in tensors),
            dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
            bytes=sum(tensor.nbytes for tensor in tensors),
        )


def outputs(cache: nntap.Cache, path: str) -> list[object]:
    """The outputs of the module at `path`, one for each time it was called."""
    entry = cache[path]
    return list(entry.output) if len(entry) > 1 else [entry.output]


def _layers(cache: nntap.Cache, first: nntap.Cache, blocks: Sequence[str]) -> Iterator[Layer]:
    entry = first[blocks[0]]
    yield Layer("embeddings", hidden_state(entry.input[0] if len(entry) > 1 else entry.input))
    for path in blocks:
        steps = outputs(cache, path)
        for step, output in enumerate(steps):  # a block that is called again and again is a layer each time
            name = path.rsplit(".", 1)[-1] if len(steps) == 1 else f"{path.rsplit('.', 1)[-1]}, call {step}"
            yield Layer(name, hidden_state(output))


def _logits(model: nn.Module, cache: nntap.Cache) -> torch.Tensor | None:
    """What the model's own lm_head gave, [sentences, tokens, vocabulary]."""
    head = output_embedding(model)
    for path, module in model.named_modules():
        if module is head:
            output = cache[path].output
            return output if isinstance(output, torch.Tensor) else None
    return None
