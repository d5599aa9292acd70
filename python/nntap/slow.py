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
        if not detach:
            return copied(tensor)
        value = tensor.detach()
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):  # an ordinary tensor, as all records are
                return copied(value)
        return copied(value)

    def copied(value: torch.Tensor) -> torch.Tensor:
        if hasattr(value, "to_local"):
            value = value.to_local()
        if value.is_quantized and dtype is not None:
            value = value.dequantize()
        target = _target(value, device)
        if value.is_nested:
            return value.clone().to(target, dtype or value.dtype)  # its `.to(copy=True)` may keep the storage
        if value.is_quantized and target == value.device:
            return value.clone()  # its `.to(copy=True)` does not know all its types
        if value.is_mkldnn:
            return value.clone() if dtype is None else value.to_dense(dtype)
        if dtype is None and str(value.dtype) in _AS_BYTES:
            return value.view(torch.uint8).to(target, copy=True).view(value.dtype)
        return value.to(target, dtype or value.dtype, copy=True)

    return snapshot


# Types that torch, or some release of it, cannot copy as they are: integers of 1 to 7 bits, a byte each, and float4.
_AS_BYTES = {f"torch.{kind}{bits}" for kind in ("int", "uint") for bits in range(1, 8)} | {"torch.float4_e2m1fn_x2"}


def _target(tensor: torch.Tensor, device: torch.device | None) -> torch.device:
    # A meta tensor has no values to bring to another device.
    return tensor.device if device is None or tensor.device.type == "meta" else device
