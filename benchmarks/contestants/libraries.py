"""Contestants from other libraries, and what the libraries that models come from offer themselves."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.contestants.way import Records, Request, Way, outputs_only, watched
from benchmarks.models import Subject, Unsuited, twin


def hidden_states(subject: Subject, request: Request) -> Way:
    """``output_hidden_states=True`` of transformers."""
    _keeps_as_is(subject, request)
    if request.modules != subject.layers or "input_ids" not in subject.inputs:
        raise Unsuited("gives the outputs of all layers of a transformers language model")
    model = subject.model

    def run() -> Any:
        return model(**subject.inputs, output_hidden_states=True).hidden_states

    def records(states: tuple[torch.Tensor, ...]) -> Records:
        for path, state in zip(subject.layers, states[1:], strict=True):
            yield (path, "output"), state

    return Way(run, records, watched(model, request))


def run_with_cache(subject: Subject, request: Request) -> Way:
    """TransformerLens. Its hook points are not the model's modules: there are three to four times as many."""
    outputs_only(request)
    if subject.lens is None or subject.steps:
        raise Unsuited("for a forward of models that TransformerLens knows")
    if request.modules is not None and request.modules != subject.layers:
        raise Unsuited("has other modules than the model: compared on all of them, or on the layers")
    from transformer_lens import TransformerBridge

    from benchmarks.tokenizer import tokenizer

    model = twin(subject.model)
    model.config.architectures = [type(model).__name__]
    model.set_attn_implementation("eager")  # the bridge insists, to show the attention's scores
    bridge = TransformerBridge.boot_transformers(
        subject.lens, hf_model=model, tokenizer=tokenizer(), device=subject.device
    )
    ids = subject.inputs["input_ids"]
    points: dict[str, nn.Module] = {
        name: point for name, point in bridge.hook_dict.items() if request.modules is None or _is_layer(name)
    }
    wanted = {} if request.modules is None else {"names_filter": list(points)}

    def run() -> Any:
        _, made = bridge.run_with_cache(ids, device=request.device, **wanted)
        return made if request.dtype is None else {name: value.to(request.dtype) for name, value in made.items()}

    def records(made: Any) -> Records:
        for name, value in made.items():
            yield (name, "output"), value.flatten(-2) if name.endswith(_BY_HEAD) else value

    return Way(run, records, points, floor=partial(bridge, ids))


_BY_HEAD = (
    *(".hook_q", ".hook_k", ".hook_v", ".hook_z"),
    *(".q.hook_out", ".k.hook_out", ".v.hook_out", ".o.hook_in"),
)
"""Hook points that are shown with a dimension for the heads, which what passes through them does not have."""


def _is_layer(hook_point: str) -> bool:
    parts = hook_point.split(".")
    return len(parts) == 3 and parts[0] == "blocks" and parts[2] == "hook_out"


def feature_extraction(subject: Subject, request: Request) -> Way:
    """torchvision's ``create_feature_extractor``: a traced graph without modules, which returns what is asked for."""
    _keeps_as_is(subject, request)
    if request.modules is None or not type(subject.model).__module__.startswith("torchvision."):
        raise Unsuited("for chosen layers of torchvision's models")
    from torchvision.models.feature_extraction import create_feature_extractor

    extract = create_feature_extractor(twin(subject.model), return_nodes={path: path for path in request.modules})

    def records(made: dict[str, torch.Tensor]) -> Records:
        return (((path, "output"), value) for path, value in made.items())

    return Way(
        run=partial(subject.forward, extract),
        records=records,
        watch=watched(subject.model, request),
        beside=partial(subject.forward, subject.model),
        aliases=True,
    )


def _keeps_as_is(subject: Subject, request: Request) -> None:
    outputs_only(request)
    if subject.steps:
        raise Unsuited("a run of one step only")
    if request.dtype is not None or (request.device is not None and request.device != subject.device):
        raise Unsuited("keeps outputs as and where they are")
