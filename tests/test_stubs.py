"""The committed stub says what the compiled module offers: its names, its parameters and its types."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import nntap
from nntap.core import _core

STUB = Path(nntap.__file__).with_name("_core.pyi")
TREE = ast.parse(STUB.read_text())

# In every type that C makes, and nothing that anybody calls.
ANYWHERE = {"__doc__", "__module__", "__vectorcalloffset__"}
# How the bindings' docstrings write what a stub writes shorter.
SHORTER = {
    r"typing\.SupportsInt \| typing\.SupportsIndex": "int",
    r"typing\.SupportsFloat \| typing\.SupportsIndex": "float",
    r"(typing|types|collections\.abc)\.": "",
}

Body = list[ast.stmt]


def class_named(name: str) -> ast.ClassDef:
    return next(node for node in TREE.body if isinstance(node, ast.ClassDef) and node.name == name)


def names_in(body: Body) -> set[str]:
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return functions | {node.target.id for node in body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]


def functions_in(body: Body) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def documented(function: Any) -> ast.FunctionDef | None:
    """The signature on the first line of a compiled function's docstring."""
    line = (function.__doc__ or "").split("\n")[0]
    for long, short in SHORTER.items():
        line = re.sub(long, short, line)
    return ast.parse(f"def {line}: ...").body[0] if "(" in line else None  # type: ignore[return-value]


def agrees(compiled: ast.expr | None, stub: ast.expr | None) -> bool:
    """Whether the stub's type is the compiled one, or says more of what is in it."""
    if stub is None or compiled is None or ast.unparse(stub) in ("Any", ast.unparse(compiled)):
        return True
    if isinstance(stub, ast.BinOp) and ast.unparse(stub.right) == "None":  # the docstring leaves it out of a pointer's
        return agrees(compiled, stub.left)
    if not isinstance(stub, ast.Subscript):
        return False
    if not isinstance(compiled, ast.Subscript):
        return ast.unparse(stub.value) == ast.unparse(compiled)
    if ast.unparse(stub.value) != ast.unparse(compiled.value):
        return False
    inside = [part.elts if isinstance(part, ast.Tuple) else [part] for part in (compiled.slice, stub.slice)]
    if ast.unparse(inside[1][-1]) == "...":
        return all(agrees(part, inside[1][0]) for part in inside[0])
    return len(inside[0]) == len(inside[1]) and all(map(agrees, *inside))


def parameters(function: ast.FunctionDef, method: bool = False) -> list[tuple[str, str, ast.expr | None]]:
    """Each parameter's kind, name and type."""
    given = function.args
    positional = [("/", arg) for arg in given.posonlyargs] + [("", arg) for arg in given.args]
    kinds = positional[1:] if method else positional
    kinds += [("*", arg) for arg in given.kwonlyargs]
    return [(kind, arg.arg, arg.annotation) for kind, arg in kinds]


def differences(compiled: ast.FunctionDef, stub: ast.FunctionDef, method: bool = False) -> list[str]:
    """What the two say differently."""
    found = []
    theirs, ours = parameters(compiled), parameters(stub, method)
    if method:  # a method written in C takes its arguments by position
        theirs = [("/", name, kind) for _, name, kind in theirs]
    if [part[:2] for part in theirs] != [part[:2] for part in ours]:
        found.append(f"{stub.name}: parameters {ast.unparse(compiled.args)}")
    for (_, name, kind), (_, _, says) in zip(theirs, ours, strict=False):
        if not agrees(kind, says):
            found.append(f"{stub.name}: {name} is a {ast.unparse(kind)}")  # type: ignore[arg-type]
    if (compiled.args.vararg is None) != (stub.args.vararg is None):
        found.append(f"{stub.name}: *{compiled.args.vararg}")
    if not agrees(compiled.returns, stub.returns):
        found.append(f"{stub.name}: gives back {ast.unparse(compiled.returns)}")  # type: ignore[arg-type]
    return found


def differences_of(home: Any, body: Body, method: bool = False) -> list[str]:
    stubs = functions_in(body)
    compiled = {name: documented(getattr(home, name)) for name in stubs if not name.startswith("__")}
    return [
        line for name, made in compiled.items() if made is not None for line in differences(made, stubs[name], method)
    ]


def test_the_module_has_the_names_of_its_stub() -> None:
    private = {"_Testing"}  # the type of `testing`, which is a module of functions
    assert {name for name in dir(_core) if not name.startswith("__")} == names_in(TREE.body) - private
    assert {name for name in dir(_core.testing) if not name.startswith("__")} == names_in(class_named("_Testing").body)


@pytest.mark.parametrize("name", ["Recorder", "Hook", "Handle", "ControllerCall"])
def test_a_class_has_the_names_of_its_stub(name: str) -> None:
    kind, node = getattr(_core, name), class_named(name)
    compiled = {"__init__" if (name, part) == ("Recorder", "__new__") else part for part in vars(kind)}
    assert compiled - ANYWHERE == names_in(node.body)
    assert [ast.unparse(part) for part in node.decorator_list] == ["final"]
    with pytest.raises(TypeError, match="not an acceptable base type"):  # what `final` says
        type("Derived", (kind,), {})


def test_functions_have_the_signatures_of_the_stub() -> None:
    assert differences_of(_core, TREE.body) == []
    assert differences_of(_core.testing, class_named("_Testing").body) == []
    assert differences_of(_core.Recorder, class_named("Recorder").body, method=True) == []


def test_a_recorder_takes_the_parameters_of_the_stub() -> None:
    made = parameters(functions_in(class_named("Recorder").body)["__init__"], method=True)
    values = {"int": 0, "bool": False}
    given = {
        name: values.get(ast.unparse(kind), len if "Callable" in ast.unparse(kind) else None) for _, name, kind in made
    }  # type: ignore[arg-type]
    assert isinstance(_core.Recorder(**given), _core.Recorder)
    by_position = [given.pop(name) for kind, name, _ in made if kind == ""]
    assert isinstance(_core.Recorder(*by_position, **given), _core.Recorder)
    with pytest.raises(TypeError, match="positional"):
        _core.Recorder(*by_position, None)
    assert isinstance(_core.Recorder(*by_position), _core.Recorder)


@pytest.mark.parametrize(
    "line",
    [
        "def set_host_limit(bytes: int) -> None: ...",
        "def set_host_limit(host_bytes: float) -> None: ...",
        "def set_host_limit(host_bytes: int) -> int: ...",
        "def set_host_limit(*, host_bytes: int) -> None: ...",
        "def set_host_limit() -> None: ...",
        "def trim(all: bool) -> int: ...",
    ],
)
def test_a_stub_that_says_something_else_is_noticed(line: str) -> None:
    assert len(differences_of(_core, ast.parse(line).body)) == 1
