"""Small models, and what "the same as `clone()`" means, for all tests."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from nntap.exchange import version_of

with_kernels = pytest.mark.skipif(
    not nntap.build_info()["cuda_architectures"], reason="this build has no CUDA kernels: NNTAP_CUDA=OFF, or no NVRTC"
)
compiles = pytest.mark.skipif(
    sys.version_info >= (3, 14) and version_of(torch) < (2, 10), reason="this torch compiles nothing on this Python"
)

INT_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Give(nn.Module):
    """Gives back what its function makes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.make()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(4, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        return x + self.mlp(self.attention(x)) * scale


class Model(nn.Module):
    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 3)})

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return {name: head(x) for name, head in self.heads.items()}


IDS = torch.tensor([[1, 2, 3]])


def record(value: Any, **options: Any) -> tuple[Any, nntap.Stats]:
    """The record of a module that gives `value` back, and the statistics of its cache."""
    model = Give(lambda: value)
    with nntap.capture(model, **options) as cache:
        model()
    return cache[""].output, cache.stats


def hooks_of(model: nn.Module) -> list[Any]:
    """Every hook on the model and its modules, and everything that stands for a module's call."""
    taps = [vars(module)["_compiled_call_impl"] for module in model.modules() if "_compiled_call_impl" in vars(module)]
    return taps + [
        hook
        for module in model.modules()
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._forward_hooks_with_kwargs,
            module._forward_pre_hooks_with_kwargs,
            module._forward_hooks_always_called,
            module._backward_hooks,
        )
        for hook in hooks.values()
    ]


# ---- tensors, bit for bit ----


def bits_of(tensor: torch.Tensor) -> torch.Tensor:
    """The elements' bytes in logical order, also of dtypes that torch has no arithmetic for."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if tensor.itemsize == 1:
        tensor = tensor.view(torch.uint8)
    dense = tensor.contiguous()
    flat = dense.as_strided((dense.numel(),), (1,), dense.storage_offset())  # a lone element may have any stride
    return flat.view(torch.uint8)


def clone_of(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor.clone()`, also of sub-byte integers, which torch cannot copy."""
    if tensor.itemsize == 1 and not tensor.is_quantized:
        return tensor.detach().view(torch.uint8).clone().view(tensor.dtype)
    return tensor.detach().clone()


def assert_tensor_is(record: torch.Tensor, expected: torch.Tensor) -> None:
    """`record` has the expected tensor's type, shape, strides and bytes, and is a plain detached tensor."""
    assert type(record) is torch.Tensor
    assert record.dtype == expected.dtype
    assert record.shape == expected.shape
    assert record.stride() == expected.stride()
    assert not record.requires_grad
    assert record.device == expected.device
    if record.is_quantized:
        assert record.qscheme() == expected.qscheme()
    assert torch.equal(bits_of(record), bits_of(expected))


def assert_cast_is(record: torch.Tensor, expected: torch.Tensor) -> None:
    """Like `assert_tensor_is`, but a nan need only be a nan: torch's own payloads differ from place to place."""
    assert record.dtype == expected.dtype
    assert record.shape == expected.shape
    assert record.stride() == expected.stride()
    ints = INT_OF_SIZE[record.itemsize]
    same = record.contiguous().view(ints) == expected.contiguous().view(ints)
    both_nan = record.isnan() & expected.isnan()
    wrong = ~(same | both_nan)
    if wrong.any():
        where = wrong.flatten().nonzero()[0]
        raise AssertionError(
            f"{int(wrong.sum())} differ, first at {where.item()}: {record.flatten()[where]} "
            f"instead of {expected.flatten()[where]}"
        )


def assert_storage_is_exact(record: torch.Tensor) -> None:
    """The record's storage is the record and nothing else, and lies on a 64-byte boundary."""
    assert record.untyped_storage().nbytes() == record.numel() * record.itemsize
    assert record.storage_offset() == 0
    assert record.numel() == 0 or record.data_ptr() % 64 == 0


# ---- nests ----


def items_of(value: Any) -> Iterator[Any] | None:
    """What a container holds, in order; None for anything else."""
    if isinstance(value, dict):
        return iter(value.values())
    if isinstance(value, (tuple, list)):
        return iter(value)
    if isinstance(value, (set, frozenset)):
        return iter(sorted(value, key=lambda item: _looks(item) if is_tensor(item) else repr(item)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return iter([getattr(value, field.name) for field in dataclasses.fields(value)])
    return None


def _looks(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What tells tensors of a set apart; where it is the same they may stand for one another."""
    return bytes(bits_of(tensor).numpy()), tensor.shape, tensor.stride(), str(tensor.dtype)


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Every tensor of a nest, in order."""
    if is_tensor(value):
        return [value]
    return [tensor for item in items_of(value) or () for tensor in tensors_in(item)]


def structure_of(value: Any) -> Any:
    """Types, keys and everything that is no tensor, as plain Python that compares with ``==``."""
    if is_tensor(value):
        return "tensor"
    items = items_of(value)
    if items is None:
        return (type(value), value)
    keys = list(value) if isinstance(value, dict) else None
    extra = getattr(value, "default_factory", None)
    return (type(value), keys, extra, [structure_of(item) for item in items])


def assert_nest_is(record: Any, structure: Any, clones: list[torch.Tensor]) -> None:
    """The record has the structure and, in order, the tensors."""
    assert structure_of(record) == structure
    records = tensors_in(record)
    assert len(records) == len(clones)
    for tensor, clone in zip(records, clones, strict=True):
        assert_tensor_is(tensor, clone)


def assert_records_are(cache: nntap.Cache, clones: dict[str, list[Any]]) -> None:
    """The cache has every module that ran, and of each call what a hook's clone says."""
    assert sorted(cache.keys()) == sorted(clones)
    for path, outputs in clones.items():
        entries = list(cache[path])
        assert len(entries) == len(outputs)
        for entry, output in zip(entries, outputs, strict=True):
            assert_nest_is(entry.output, structure_of(output), tensors_in(output))


@contextmanager
def clones_of_outputs(module: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """What each module gives back while the block runs, cloned by hooks, by path and call."""
    found: dict[str, list[Any]] = {}

    def keep(path: str) -> Any:
        return lambda _, __, output: found.setdefault(path, []).append(cloned(output))

    handles = [part.register_forward_hook(keep(path)) for path, part in module.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def cloned(value: Any) -> Any:
    """A nest of tuples, lists and dicts with its tensors cloned; other objects as they are."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = cloned(item)
        return made
    return type(value)(cloned(item) for item in value) if isinstance(value, (list, tuple)) else value


# ---- scripts ----


def run_script(script: str, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process of its own, where a crash or a stray thread hurts nobody.

    The timeout only ends a process that hangs.
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_script_runs(script: str, *arguments: str, says: str = "") -> None:
    """The script ends with exit code 0, prints `says`, and nothing on its error stream."""
    done = run_script(script, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), f"rc {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip() == says


# ---- threads ----


def wait_until(happened: Callable[[], bool]) -> None:
    """Lets other threads run until it has."""
    while not happened():
        threading.Event().wait(0.001)
