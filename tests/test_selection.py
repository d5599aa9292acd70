"""What `modules=` and the other options take, and how bad input is refused before the model runs.

Tests `nntap.select` and `nntap.options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Block, Model, hooks_of


@pytest.fixture
def model() -> Model:
    return Model().eval()


def recorded(model: nn.Module, modules: Any, *args: Any) -> list[str]:
    with nntap.capture(model, modules) as cache:
        model(*(args or (IDS,)))
    assert hooks_of(model) == []
    return cache.keys()


# ---- selection ----


def test_none_selects_every_module_in_the_order_they_run(model: Model) -> None:
    keys = recorded(model, None)
    called = [path for path, _ in model.named_modules() if path not in ("layers", "heads")]
    assert sorted(keys) == sorted(called)
    assert keys[0] == "embed"
    assert keys[1:6] == ["layers.0." + name for name in ("attention", "mlp.0", "mlp.1", "mlp.2", "mlp")]
    assert keys[-3:] == ["heads.a", "heads.b", ""]


SELECTIONS: dict[str, tuple[Callable[[Model], Any], list[str]]] = {
    "a path": (lambda m: "layers.1", ["layers.1"]),
    "the root's path": (lambda m: "", [""]),
    "a module": (lambda m: m.layers[2].mlp, ["layers.2.mlp"]),
    "the model": (lambda m: m, [""]),
    "a ModuleList": (lambda m: m.layers, ["layers.0", "layers.1", "layers.2"]),
    "a ModuleDict": (lambda m: m.heads, ["heads.a", "heads.b"]),
    "entries of a ModuleList": (lambda m: [*m.layers[1:]], ["layers.1", "layers.2"]),
    "a glob of one component": (lambda m: "layers.*", ["layers.0", "layers.1", "layers.2"]),
    "a glob in the middle": (lambda m: "layers.*.mlp", ["layers.0.mlp", "layers.1.mlp", "layers.2.mlp"]),
    "a glob over several": (lambda m: "**.mlp.0", ["layers.0.mlp.0", "layers.1.mlp.0", "layers.2.mlp.0"]),
    "a set in a glob": (lambda m: "layers.[01]", ["layers.0", "layers.1"]),
    "a set turned round": (lambda m: "layers.[!0]", ["layers.1", "layers.2"]),
    "one character": (lambda m: "heads.?", ["heads.a", "heads.b"]),
    "an expression": (lambda m: re.compile(r"layers\.\d\.attention"), [f"layers.{i}.attention" for i in range(3)]),
    "a predicate": (
        lambda m: lambda path, module: isinstance(module, nn.ReLU),
        [f"layers.{i}.mlp.1" for i in (0, 1, 2)],
    ),
    "a list of these": (lambda m: ["embed", m.layers[0], "heads.*"], ["embed", "layers.0", "heads.a", "heads.b"]),
    "a tuple": (lambda m: ("embed", ""), ["embed", ""]),
    "a generator": (lambda m: (layer.mlp for layer in m.layers), [f"layers.{i}.mlp" for i in range(3)]),
    "nested lists": (lambda m: [["embed"], [["layers.0"]]], ["embed", "layers.0"]),
    "the same thing twice": (lambda m: ["embed", m.embed, "emb*"], ["embed"]),
    "other order than the model's": (lambda m: ["layers.1", "layers.0"], ["layers.0", "layers.1"]),
}


@pytest.mark.parametrize("kind", SELECTIONS)
def test_modules_may_be_given_as(kind: str, model: Model) -> None:
    make, expected = SELECTIONS[kind]
    assert recorded(model, make(model)) == expected


def test_all_modules_in_another_order_keep_their_paths(model: Model) -> None:
    paths = [path for path, _ in model.named_modules()]
    with nntap.capture(model, paths[::-1]) as cache:
        model(IDS)
    assert cache["embed"].output.shape == (1, 3, 4)
    assert cache["heads.a"].output.shape == (1, 3, 2)


def test_an_expression_must_match_the_whole_path(model: Model) -> None:
    assert recorded(model, re.compile("embed")) == ["embed"]
    with pytest.raises(nntap.UnknownModuleError, match="mbed"):
        nntap.capture(model, re.compile("mbed"))


def test_a_star_does_not_cross_a_dot(model: Model) -> None:
    assert "layers.0.mlp.0" not in recorded(model, "layers.0.*")
    assert "layers.0.mlp.0" in recorded(model, "layers.0.**")


# ---- lists of modules, which mean their entries ----


class Stack(nn.ModuleList):
    """A list that is called itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x)
        return x


class Lists(nn.Module):
    """Lists that hold each other's modules, and lists."""

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.emb = nn.Linear(4, 4)
        self.every = nn.ModuleList([self.emb, *self.h])
        self.nest = nn.ModuleList([nn.ModuleList([nn.Linear(4, 4)]), nn.ModuleDict({"a": nn.Linear(4, 4)})])
        self.stack = Stack([nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in (*self.every, self.nest[0][0], self.nest[1]["a"], self.stack):
            x = module(x)
        return x


H = ["h.0", "h.1", "h.2"]
LISTS: dict[str, tuple[Callable[[Lists], Any], list[str]]] = {
    "its path": (lambda m: "h", H),
    "a dict's path": (lambda m: "nest.1", ["nest.1.a"]),
    "a glob": (lambda m: "h*", H),
    "an expression": (lambda m: re.compile("h|emb"), ["emb", *H]),
    "a list in a list": (lambda m: m.nest, ["nest.0.0", "nest.1.a"]),
    "the path of a list in a list": (lambda m: "nest", ["nest.0.0", "nest.1.a"]),
    "entries that are at home elsewhere": (lambda m: m.every, ["emb", *H]),
    "the path of a list of those": (lambda m: "every", ["emb", *H]),
    "a slice": (lambda m: m.h[:2], H[:2]),
    "a list of the model's modules": (lambda m: nn.ModuleList([m.emb, m.nest]), ["emb", "nest.0.0", "nest.1.a"]),
    "a dict of the model's modules": (lambda m: nn.ModuleDict({"x": m.emb}), ["emb"]),
    "a list that is called": (lambda m: m.stack, ["stack"]),
    "the path of a list that is called": (lambda m: "stack", ["stack"]),
    "a predicate that refuses the entries": (lambda m: lambda path, _: path in ("h", "emb"), ["emb"]),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_modules_may_be_given_as(kind: str) -> None:
    make, expected = LISTS[kind]
    model = Lists()
    assert recorded(model, make(model), torch.ones(4)) == expected


def test_a_list_that_holds_itself_is_its_other_entries() -> None:
    model = Lists()
    model.nest.append(model.nest)
    assert recorded(model, "nest", torch.ones(4)) == ["nest.0.0", "nest.1.a"]


def test_a_list_of_the_modules_of_another_model_is_foreign(model: Model) -> None:
    with pytest.raises(nntap.UnknownModuleError, match=r"^Block is no module of this model"):
        nntap.capture(model, Model().layers)


# ---- modules that have several paths ----


class Sharing(nn.Module):
    """A block under two names, of which each part has two."""

    def __init__(self) -> None:
        super().__init__()
        self.one = Block()
        self.one.attn = self.one.attention
        self.two = nn.ModuleDict({"in": nn.ModuleDict({"x": self.one})})
        self.three = self.two["in"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.three["x"](x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("glob", ["on?.attn", "two.*.x.attention", "two.*.x.attn", "three.*.attn", "th*.x.at*"])
def test_a_glob_may_go_through_several_other_names(glob: str) -> None:
    assert recorded(Sharing(), glob, torch.ones(4)) == ["one.attention"]


def test_a_glob_meets_a_module_that_holds_itself() -> None:
    model = Sharing()
    model.one.me = model.one
    model.one.top = model
    assert recorded(model, "one.top.three.*.attn", torch.ones(4)) == ["one.attention"]


# ---- bad input, before the model runs ----


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ("layers.9", ["'layers.9'", "the closest are", "'layers.0'"]),
        ("layer.1", ["'layer.1'", "'layers.1'"]),
        ("layers.1.atention", ["'layers.1.atention'", "'layers.1.attention'"]),
        ("blocks.*", ["'blocks.*'", "matches no module"]),
        (["embed", "nothing.at.all"], ["'nothing.at.all'"]),
        ("layrs.*.atention", ["'layrs.*.atention'", "the closest are", "'layers.1.attention'"]),
        ("layrs.?.fc[01]", ["'layrs.?.fc[01]'", "the closest are", "'layers.1'"]),
        (re.compile("h[0-9]+"), ["h[0-9]+", "matches no module"]),
        (re.compile(r"layer\.\d+\.atention"), ["the closest are", "'layers.1.attention'"]),
        (lambda path, module: False, ["predicate", "matches no module"]),
        (nn.Linear(1, 1), ["Linear", "no module of this model", "modules= takes"]),
        ([nn.ReLU()], ["ReLU", "no module of this model"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unknown_module_is_named_with_what_is_close(model: Model, modules: Any, says: list[str]) -> None:
    with pytest.raises(nntap.UnknownModuleError) as caught:
        nntap.capture(model, modules)
    assert isinstance(caught.value, KeyError)
    for part in says:
        assert part in str(caught.value)
    assert hooks_of(model) == []


def test_the_entry_of_another_model_is_foreign(model: Model) -> None:
    with pytest.raises(nntap.UnknownModuleError, match="no module of this model"):
        nntap.capture(model, Model().layers[0])


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("layers[0]", "layers.0"),
        ("layers[0].mlp", "layers.0.mlp"),
        ("mlp[0]", "**.mlp.0"),
        ("1.*.[02]", "layers.1.*.[02]"),
        ("attention*", "**.attention*"),
    ],
)
def test_a_glob_that_matches_nothing_is_answered_with_one_that_would(model: Model, glob: str, meant: str) -> None:
    with pytest.raises(nntap.UnknownModuleError) as caught:
        nntap.capture(model, glob)
    assert str(caught.value) == f"the glob {glob!r} matches no module; {meant!r} would match"
    assert recorded(model, meant)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"modules": []}, ValueError, ["modules=[]", "record nothing"]),
        ({"modules": 3}, TypeError, ["modules=3", "takes None"]),
        ({"modules": [None]}, TypeError, ["None", "takes None"]),
        ({"modules": nn.Linear}, TypeError, ["modules=Linear is a class", "isinstance(module, Linear)"]),
        ({"modules": b"layers.0"}, TypeError, ["modules=b'layers.0'", "takes None"]),
        ({"modules": re.compile(b"layers")}, TypeError, ["re.compile(b'layers')", "takes None"]),
        ({"modules": nn.Parameter(torch.ones(2))}, TypeError, ["modules=Parameter", "takes None"]),
        ({"modules": lambda path: True}, TypeError, ["<lambda>", "does not take (path, module)"]),
        ({"dtype": "float17"}, ValueError, ["dtype='float17'", "float16", "bfloat16", "None"]),
        ({"dtype": "fp16"}, ValueError, ["dtype='fp16'", "float16"]),
        ({"dtype": float}, TypeError, ["float", "a torch dtype or its name"]),
        ({"dtype": 16}, TypeError, ["dtype=16", "a torch dtype or its name"]),
        ({"dtype": torch.qint8}, ValueError, ["qint8", "float16"]),
        ({"dtype": torch.uint4}, ValueError, ["uint4", "float16"]),
        ({"device": "cup"}, ValueError, ["device='cup'", "'cpu'", "None"]),
        ({"device": "cpu:banana"}, ValueError, ["device='cpu:banana'", "'cpu'"]),
        ({"device": "meta"}, ValueError, ["device='meta'", "no values", "'cpu'"]),
        ({"device": torch.device("meta")}, ValueError, ["meta", "no values", "'cpu'"]),
        ({"device": 1.5}, TypeError, ["device=1.5", "'cpu'"]),
        ({"device": True}, TypeError, ["device=True", "'cpu'"]),
        ({"detach": "no"}, TypeError, ["detach='no'", "True or False"]),
        ({"detach": None}, TypeError, ["detach=None", "True or False"]),
        ({"include_output": 1}, TypeError, ["include_output=1", "True or False"]),
        ({"include_inputs": "yes"}, TypeError, ["include_inputs='yes'", "True or False"]),
        ({"include_output": False}, ValueError, ["include_output=False", "include_inputs=False", "record nothing"]),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_bad_options_are_refused_with_what_is_allowed(
    model: Model, options: dict[str, Any], kind: type[Exception], says: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        nntap.capture(model, **options)
    for part in says:
        assert part in str(caught.value)
    assert hooks_of(model) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_this_machine_does_not_have_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="device='cuda' is not allowed on this machine"):
        nntap.capture(model, device="cuda")


@pytest.mark.parametrize("thing", [None, "gpt2", lambda x: x, nn.Linear, object()], ids=lambda it: type(it).__name__)
def test_a_model_that_is_no_module_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"give a torch\.nn\.Module"):
        nntap.capture(thing)


@pytest.mark.parametrize("dtype", ["float16", "torch.float16", "half", torch.float16])
def test_a_dtype_may_be_given_by_name(model: Model, dtype: Any) -> None:
    with nntap.capture(model, "embed", dtype=dtype) as cache:
        model(IDS)
    assert cache["embed"].output.dtype == torch.float16


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu"), None], ids=str)
def test_the_host_may_be_given_as(model: Model, device: Any) -> None:
    with nntap.capture(model, "embed", device=device) as cache:
        model(IDS)
    assert cache["embed"].output.device == torch.device("cpu")
    assert cache.stats.slow == {}
