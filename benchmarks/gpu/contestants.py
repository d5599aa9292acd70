"""Ways of bringing what modules give back to the host: each runs the model once and returns what it recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import nntap

Forward = Callable[[], Any]

PREFILL: dict[str, Any] = {"use_cache": False, "logits_to_keep": 1}
"""What every contestant calls the model with, so that all do the same work."""


def run_prefill(model: nn.Module, inputs: torch.Tensor) -> Any:
    with torch.no_grad():
        return model(inputs, **PREFILL)


def on_nntap(model: nn.Module, forward: Forward, **options: Any) -> Any:
    """Every byte is there when it returns. Raises RuntimeError where torch had to record: that is not nntap's time."""
    with nntap.capture(model, **options) as cache:
        forward()
    if cache.stats.slow:
        raise RuntimeError(f"torch recorded, not nntap: {cache.stats.slow}")
    for path in cache:
        cache[path].output  # noqa: B018  (waits for it)
    return cache


def on_cpu_hooks(model: nn.Module, forward: Forward) -> Any:
    """What people write first: ``.cpu()`` in a forward hook."""
    return _with_hooks(model, forward, lambda tensor: tensor.detach().cpu())


def on_pinned_hooks(model: nn.Module, forward: Forward) -> Any:
    """What people write next: a pinned tensor and a copy that does not block, and one synchronise at the end.

    A later operation in place would overwrite nothing here: the copy is in the order of the model's own stream.
    """

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return pinned.copy_(tensor.detach(), non_blocking=True)

    kept = _with_hooks(model, forward, copy)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return kept


def _with_hooks(model: nn.Module, forward: Forward, copy: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    kept: dict[str, Any] = {}

    def hook_for(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            kept[path] = torch.utils._pytree.tree_map_only(torch.Tensor, copy, output)

        return hook

    handles = [module.register_forward_hook(hook_for(path)) for path, module in model.named_modules()]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return kept


def on_nnsight_cache(wrapped: Any, inputs: torch.Tensor) -> Any:
    """nnsight's own cache."""
    with torch.no_grad():
        with wrapped.trace(inputs, **PREFILL) as tracer:
            cache = tracer.cache()
    return cache


def on_nnsight_save(wrapped: Any, inputs: torch.Tensor, paths: list[str]) -> Any:
    """``.save()`` of every module's output, which keeps it on the device, and ``.cpu()`` after the run.

    `paths`: in the order in which the model calls them.
    """
    saved: dict[str, Any] = {}
    by_path = {envoy.path: envoy for envoy in wrapped.modules()}
    envoys = [by_path[f"model.{path}" if path else "model"] for path in paths]
    with torch.no_grad():
        with wrapped.trace(inputs, **PREFILL):
            for envoy in envoys:
                saved[envoy.path] = envoy.output.save()
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu(), saved)
