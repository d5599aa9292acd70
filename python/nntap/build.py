"""How the compiled core was built. No `build_info.py`: a module of that name would stand where the function does."""

from __future__ import annotations

from typing import Any

from nntap import _core


def build_info() -> dict[str, Any]:
    """How the core was built and what it found on this machine.

    Returns:
        ``version``, ``compiler``, ``dlpack`` (the version of its header), ``cpu_casts`` (the instructions that casts
        on the CPU use), ``cpu_threads`` (how many of torch's threads large copies on the CPU use), ``devices`` (the
        kinds of device with a fast path), ``cuda_architectures`` (what the CUDA kernels were compiled for; ``ptx_80``
        is for GPUs newer than all others named) and ``cuda``: ``installed`` (whether there is an NVIDIA driver),
        ``problem`` (why no GPU can be used, or ``None``) and, where one can, ``driver`` (the CUDA version it is for)
        and ``devices`` (``name``, ``capability`` and the ``kernel`` that fits, of each).
    """
    return {**_core.build_info(), "cuda": _core.cuda_info()}
