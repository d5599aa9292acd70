"""Real models for the random programs: torch's own operations, in place where such models work in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from random import Random
from typing import Any

import torch
from torch import nn

from nntap.testing.memory import each
from nntap.testing.watch import MISSING, Watch

Given = tuple[tuple[Any, ...], dict[str, Any]]
WIDTH = 8


class Block(nn.Module):
    """A residual block, whose last operations overwrite what its activation function gave back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(2, WIDTH)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(self.norm(self.conv(x)))
        y += x
        y = self.act(y)
        return y.mul_(0.5)


class Residual(nn.Module):
    """A small convolutional network that gives back a nest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> dict[str, Any]:
        x = self.stem(x).mul_(scale)
        for block in self.blocks:
            x = block(x)
        return {"hidden": (x, x.transpose(1, 3)), "logits": self.head(x.mean((2, 3)))}


class Follower:
    """Tells watches what each module of a model takes in and gives back, as clones made at that moment.

    Outside of whatever else stands between a module and its caller by then, nnsight for one: follow the model first.
    """

    def __init__(self, model: nn.Module) -> None:
        self.watches: list[Watch] = []
        self.replaced: set[nn.Module] = set()  # whose inputs nnsight changes on their way
        self.in_the_middle: Callable[[], None] = _nothing
        self._begun: list[nn.Module] = []
        self._ended: list[nn.Module] = []  # the last one that did
        for module in model.modules():
            self._follow(module)

    def settle(self, raised: bool) -> None:
        """To be called after each run. What one that gave up left open may lack an output, or all.

        Args:
            raised: Whether the run ended with an error; one that nnsight stops ends early without any.
        """
        if raised or self._begun:
            for module in {*self._begun, *self._ended}:
                for watch in self.watches:
                    watch.failed(module)
        self._begun.clear()
        self._ended.clear()

    def forget(self) -> None:
        """From now on nobody is told."""
        self.watches = []
        self.replaced = set()
        self.in_the_middle = _nothing

    def _follow(self, module: nn.Module) -> None:
        forward = module.forward

        def followed(*args: Any, **kwargs: Any) -> Any:
            if module in self.replaced:
                for watch in self.watches:
                    watch.takes_instead(module, cloned((args, kwargs)))
            self.in_the_middle()
            return forward(*args, **kwargs)

        module.forward = followed
        module.register_forward_pre_hook(self._begins, with_kwargs=True)
        module.register_forward_hook(self._ends)

    def _begins(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._begun.append(module)
        inputs = MISSING if module in self.replaced else cloned((args, kwargs))
        for watch in self.watches:
            watch.takes(module, inputs)

    def _ends(self, module: nn.Module, args: Any, output: Any) -> None:
        self._begun.remove(module)
        self._ended = [module]
        truth = cloned(output)
        for watch in self.watches:
            watch.gives(module, truth)


def _nothing() -> None:
    pass


def cloned(nest: Any) -> Any:
    """The nest with clones of its tensors."""
    return each(nest, lambda tensor: tensor.detach().clone(), torch.Tensor)


@dataclass(frozen=True)
class Subject:
    """A model that is followed, and what programs may do with it."""

    model: nn.Module
    follower: Follower
    some_input: Callable[[Random], Given]
    places: tuple[str, ...]
    """Modules that give back one tensor of the shape that they take in, in the order in which they run."""
    generation: dict[str, Any] | None = None
    """How its `generate` gives as many tokens as it is asked for; None where it has none."""


@cache
def subjects(purpose: str) -> tuple[Subject, ...]:
    """The models that can be made here; for each purpose models of their own, as what nnsight wraps stays wrapped."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return (_residual(), _gpt2()) if find_spec("transformers") else (_residual(),)


def _residual() -> Subject:
    model = Residual().eval()

    def some_input(random: Random) -> Given:
        size = random.randint(2, 6)
        return (_some_values(random, random.randint(1, 2), 3, size, size),), {"scale": random.choice((0.5, 2.0))}

    blocks = [f"blocks.{number}{name}" for number in range(3) for name in (".conv", ".norm", "")]
    return Subject(model, Follower(model), some_input, tuple(blocks))


def _gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    narrow = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**narrow, bos_token_id=0, eos_token_id=None)).eval()

    def some_input(random: Random) -> Given:
        shape = random.randint(1, 3), random.randint(1, 9)
        return (torch.randint(32, shape, generator=_generator(random)),), {"use_cache": False}

    layers = [f"transformer.h.{number}{name}" for number in range(2) for name in (".ln_1", ".ln_2", ".mlp")]
    generation = {"do_sample": False, "pad_token_id": 0}
    return Subject(model, Follower(model), some_input, (*layers, "transformer.ln_f"), generation)


def _some_values(random: Random, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_generator(random))


def _generator(random: Random) -> torch.Generator:
    return torch.Generator().manual_seed(random.getrandbits(32))
