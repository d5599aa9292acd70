"""Snapshots through torch itself, for the tensors that the core leaves to it."""

from __future__ import annotations

from collections.abc import Callable

import torch


def slow_snapshot(
    device: torch.device | None, dtype: torch.dtype | None, detach: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that copies one tensor of any kind as ``t.detach().to(device, dtype)`` would.

    Always a copy, even where ``.to()`` would return the tensor itself. With ``detach=False`` the copy stays in the
    autograd graph. A DTensor is recorded by its local part; a quantised tensor with a ``dtype`` is dequantised.
    """

    def snapshot(tensor: torch.Tensor) -> torch.Tensor:
        value = tensor.detach() if detach else tensor
        if hasattr(value, "to_local"):
            value = value.to_local()
        if value.is_quantized and dtype is not None:
            value = value.dequantize()
        if value.is_nested and not hasattr(value, "to_local"):
            return _snapshot_nested(value, device, dtype)
        return value.to(device=_target(value, device), dtype=dtype or value.dtype, copy=True)

    return snapshot


def _target(tensor: torch.Tensor, device: torch.device | None) -> torch.device:
    # A meta tensor has no values to bring to another device.
    return tensor.device if device is None or tensor.device.type == "meta" else device


def _snapshot_nested(tensor: torch.Tensor, device: torch.device | None, dtype: torch.dtype | None) -> torch.Tensor:
    # `.to(copy=True)` of a nested tensor may return the same storage.
    return tensor.clone().to(device=_target(tensor, device), dtype=dtype or tensor.dtype)
