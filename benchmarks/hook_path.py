"""What valgrind counts: calls of modules that compute nothing, recorded or not.

Run by `instructions`. Counting is switched on and off from inside, so that imports and set-up are not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

import nntap

MODULES = 64
WAYS = ("bare", "capture", "bare under nnsight", "nnsight on nntap", "nnsight's own")


class Give(nn.Module):
    """Gives back a tensor of its own, made before."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.ones(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.kept


class Chain(nn.Module):
    """Counts the instructions of the calls of its modules, while `counting`."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Give() for _ in range(MODULES))
        self.counting = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = list(self.steps)
        self._count("on")
        for step in steps:
            x = step(x)
        self._count("off")
        return x

    def _count(self, state: str) -> None:
        if self.counting:
            command = ["callgrind_control", "-i", state, str(os.getpid())]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(way: str) -> None:
    chain = Chain().eval()
    x = torch.zeros(1)
    run = _runs(chain, x)[way]
    with torch.no_grad():
        for _ in range(5):
            run()
        chain.counting = True
        run()


def _runs(chain: Chain, x: torch.Tensor) -> dict[str, object]:
    def capture() -> None:
        with nntap.capture(chain):
            chain(x)

    runs: dict[str, object] = {"bare": lambda: chain(x), "capture": capture}
    try:
        from nnsight import NNsight
    except ImportError:
        return runs
    traced = NNsight(chain)

    def nothing() -> None:
        with traced.trace(x):
            pass

    def cache() -> None:
        with traced.trace(x) as tracer:
            tracer.cache()

    def on_nntap() -> None:
        with nntap.installed():
            cache()

    return runs | {"bare under nnsight": nothing, "nnsight's own": cache, "nnsight on nntap": on_nntap}


if __name__ == "__main__":
    main(sys.argv[1])
