"""Writes docs/api.md from the docstrings and signatures of the public names, which griffe reads without importing them.

python scripts/make_api_page.py          # writes the page
python scripts/make_api_page.py --check  # exit code 1 where the page is not what would be written
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
INTRODUCTION = """\
# API

Everything public is a name in `nntap`. This page is generated from the docstrings by `scripts/make_api_page.py`.

`nntap.testing` is not part of the interface and may change in any release. It holds the simulated CUDA driver and what
runs on it, for the project's own tests and for [contributors](../CONTRIBUTING.md#tests).
"""
TOPICS = {
    "Recording": ["install", "uninstall", "installed", "capture"],
    "Reading": ["Cache", "CacheView", "Entry", "Stats"],
    "Memory and build": ["set_limits", "reserve", "pool_stats", "trim", "build_info"],
    "Errors": [
        "UnknownModuleError",
        "HostMemoryError",
        "CudaError",
        "UnsupportedTorchError",
        "UnsupportedNnsightError",
    ],
}
CALLED_BY_USERS = {"capture"}  # of the classes; nntap makes the objects of the others


def page() -> str:
    """The page's text. Raises ValueError where a public name has no topic, or a topic a name that is not public."""
    package = griffe.load("nntap", search_paths=[ROOT / "python"], docstring_parser="google", allow_inspection=False)
    public = {str(name).strip("'\"") for name in package.exports or ()} - {"__version__"}
    listed = {name for names in TOPICS.values() for name in names}
    if public != listed:
        raise ValueError(f"no topic has {sorted(public - listed)}; not public are {sorted(listed - public)}")
    lines = [INTRODUCTION]
    for topic, names in TOPICS.items():
        lines.append(f"- {topic}: {', '.join(f'[`{name}`](#{_anchor(name)})' for name in names)}")
    for topic, names in TOPICS.items():
        lines += ["", f"## {topic}"]
        for name in names:
            lines += ["", *_object(name, package[name].final_target)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _anchor(name: str) -> str:
    return f"nntap{name.lower()}"  # as the heading `nntap.NAME` is turned into one


def _object(name: str, found: Any) -> Iterator[str]:
    yield f"### `nntap.{name}`"
    yield ""
    if found.is_function:
        yield from _signature(f"nntap.{name}", found)
    elif name in CALLED_BY_USERS:
        yield from _signature(f"nntap.{name}", found["__init__"], returns=False)
    elif found.name.endswith("Error"):
        yield f"Is a `{found.bases[0]}`."
        yield ""
    yield from _docstring(found)
    if found.is_class:
        yield from _members(found)
    yield f"Source: [`{_source(found)}`](../{_source(found)})"


def _source(found: Any) -> str:
    return str(found.filepath.relative_to(ROOT))


def _signature(name: str, function: Any, returns: bool = True) -> list[str]:
    parameters, seen_star = [], False
    for parameter in function.parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not seen_star:
            parameters.append("*")
            seen_star = True
        parameters.append(_parameter(parameter))
    result = f" -> {function.returns}" if returns and function.returns else ""
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) > 100:
        line = f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){result}"
    return ["```python", line, "```", ""]


def _parameter(parameter: Any) -> str:
    annotation = f": {parameter.annotation}" if parameter.annotation else ""
    if parameter.default is None:
        return f"{parameter.name}{annotation}"
    return (
        f"{parameter.name}{annotation} = {parameter.default}" if annotation else f"{parameter.name}={parameter.default}"
    )


def _docstring(found: Any) -> Iterator[str]:
    if found.docstring is None:
        raise ValueError(f"{found.path} has no docstring")
    for section in found.docstring.parsed:
        kind, value = section.kind.value, section.value
        if kind == "text":
            yield _prose(value)
        elif kind == "examples":
            yield "Example:\n"
            yield "\n\n".join(text if what == "text" else _code(text) for what, text in value)
        elif kind == "admonition":
            yield f"{section.title}:\n"
            yield _code(value.contents)
        elif kind in ("parameters", "attributes"):
            yield f"{'Arguments' if kind == 'parameters' else 'Attributes'}:\n"
            yield "\n".join(f"- `{item.name}`: {_prose(item.description, 2)}" for item in value)
        elif kind == "returns":
            yield f"Returns: {_prose(' '.join(item.description for item in value))}"
        elif kind == "raises":
            yield "Raises:\n"
            yield "\n".join(f"- `{item.annotation}`: {_prose(item.description, 2)}" for item in value)
        else:
            raise ValueError(f"{found.path}: this page knows no section {kind!r}")
        yield ""


def _code(text: str) -> str:
    lines = [re.sub(r"^(>>>|\.\.\.) ?", "", line) for line in text.strip().splitlines()]
    return "```python\n" + "\n".join(lines) + "\n```"


def _prose(text: str, indent: int = 0) -> str:
    return text.strip().replace("``", "`").replace("\n", "\n" + " " * indent)


def _members(cls: Any) -> Iterator[str]:
    """Attributes, then methods; those of a private base class are the class's own."""
    said = {
        item.name for section in cls.docstring.parsed if section.kind.value == "attributes" for item in section.value
    }
    members = {name: _target(member) for name, member in {**cls.inherited_members, **cls.members}.items()}
    shown = {name: member for name, member in members.items() if not name.startswith("_") and member.docstring}
    attributes = {name: member for name, member in shown.items() if member.is_attribute and name not in said}
    for name, member in attributes.items():
        annotation = f" (`{member.annotation}`)" if str(member.annotation) not in ("None", "Any") else ""
        yield f"- `{name}`{annotation}: {_prose(member.docstring.value, 2)}"
    if attributes:
        yield ""
    for name, member in shown.items():
        if member.is_function and "classmethod" not in member.labels:
            yield f"#### `{cls.name}.{name}`"
            yield ""
            yield from _signature(name, member)
            yield from _docstring(member)


def _target(member: Any) -> Any:
    return member.final_target if member.is_alias else member


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    text = page()
    if parser.parse_args().check:
        if PAGE.read_text() == text:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is old: run python scripts/make_api_page.py", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
