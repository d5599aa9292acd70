"""The README's table, from committed JSON and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP
from benchmarks.show import milliseconds, size, spread

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: table -->", "<!-- benchmarks: end -->"


def headline(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a paragraph and a table for each machine."""
    parts = [_machine_table(result) for result in results if _headlines(result)]
    if not any(result["machine"]["device"] == "cuda" for result in results):
        parts.append("Not measured on a GPU yet.")
    return "\n\n".join(parts)


def put_in_readme(text: str, readme: str) -> str:
    """The README with `text` between its two marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _headlines(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for case in result["cases"] if case["headline"]]


def _machine_table(result: dict[str, Any]) -> str:
    lines = [
        f"{_machine(result)}:",
        "",
        "| Recorded | Bytes | Bare forward | nnsight's cache adds | nntap adds | Part of nnsight's |",
        "|---|---|---|---|---|---|",
    ]
    for case in _headlines(result):
        rows = {row["contestant"]: row for row in case["rows"] if "skipped" not in row}
        for name, how in ((ON_NNTAP, "under nnsight"), (CAPTURE, "stand-alone")):
            if name in rows and NNSIGHTS in rows:
                lines.append(_line(case["title"], how, rows[BARE], rows[NNSIGHTS], rows[name]))
    return "\n".join(lines)


def _line(title: str, how: str, bare: Any, nnsights: Any, ours: Any) -> str:
    cells = [
        f"{title}, {how}",
        size(ours["bytes_recorded"]),
        milliseconds(bare["seconds"]["median"]),
        milliseconds(nnsights["added"]["median"]),
        milliseconds(ours["added"]["median"]),
        spread(ours["of_nnsight"]),
    ]
    return f"| {' | '.join(cells)} |"


def _machine(result: dict[str, Any]) -> str:
    machine, packages = result["machine"], result["machine"]["packages"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    clock = ", processor time" if result["settings"]["clock"] == "process" else ""
    return (
        f"{machine.get('gpu') or machine['cpu']}, {threads} of torch {packages['torch']}, "
        f"nnsight {packages.get('nnsight', 'not installed')}{clock}"
    )
