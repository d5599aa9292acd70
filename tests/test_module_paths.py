"""The walk of a model: every module once under its path, as torch's `named_modules()` has them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nntap.core import module_paths

NAMES = st.text("ab_0é", min_size=1, max_size=3)


class Tree(nn.Module):
    """Children of any name; what stands below it is never called."""

    def __init__(self, children: dict[str, nn.Module | None], ordered: bool) -> None:
        super().__init__()
        for name, child in children.items():
            self.register_module(f"n{name}", child)
        if ordered and children:
            self._modules = OrderedDict(self._modules)
            self._modules.move_to_end(next(iter(self._modules)))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Modules that stand at one place or several, some of them None."""
    made: list[nn.Module | None] = [None, nn.Identity()]
    for _ in range(draw(st.integers(1, 8))):
        made.append(Tree(draw(st.dictionaries(NAMES, st.sampled_from(made), max_size=4)), draw(st.booleans())))
    root = made[-1]
    assert isinstance(root, Tree)
    return root


@given(trees())
def test_every_module_is_found_once_in_torchs_order(root: Tree) -> None:
    paths, aliases = module_paths(root)
    assert [(path, module) for module, path in paths.items()] == list(root.named_modules())
    everywhere = dict(root.named_modules(remove_duplicate=False))
    # What stands below an alias has its other paths through the alias.
    assert aliases.items() <= {path: paths[module] for path, module in everywhere.items()}.items()
    assert not set(aliases) & set(paths.values())
    reached = {*paths.values(), *aliases}
    assert all(path in reached or any(path.startswith(f"{alias}.") for alias in aliases) for path in everywhere)


def test_a_module_that_holds_itself_is_found_once() -> None:
    root = nn.Sequential(nn.ReLU())
    root._modules["again"] = root
    paths, aliases = module_paths(root)
    assert (list(paths.values()), aliases) == (["", "0"], {"again": ""})


def test_a_script_module_is_walked() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU())))
    assert list(module_paths(scripted)[0].values()) == [path for path, _ in scripted.named_modules()]


def test_a_hash_that_changes_the_model_is_survived() -> None:
    class Changing(nn.Module):
        def __hash__(self) -> int:
            root._modules.clear()
            return 1

    root = nn.Sequential(Changing(), nn.ReLU())
    root.__dict__["_modules"] = dict(root._modules)  # what torch has from 2.5 on
    assert list(module_paths(root)[0].values()) == ["", "0"]


@pytest.mark.parametrize("child", [nn.Identity(), {}, OrderedDict(a=3)])
def test_what_is_no_module_is_refused(child: Any) -> None:
    root = nn.Sequential(nn.ReLU())
    root.__dict__["_modules"] = {"odd": child, "odder": 3}
    with pytest.raises((AttributeError, TypeError, ValueError)):
        module_paths(root)


def test_a_model_that_is_too_deep_says_so() -> None:
    root = nn.Module()
    deepest = root
    for _ in range(100_000):
        below = nn.Module()
        deepest.__dict__["_modules"] = {"m": below}  # a plain dict is what torch has from 2.5 on
        deepest = below
    with pytest.raises(RecursionError, match="while walking the modules of a model"):
        module_paths(root)
    while root is not None:  # freeing it all at once would recurse too
        root = root._modules.pop("m", None)
