"""The README's table, from committed JSON and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP, save_among
from benchmarks.show import digits, milliseconds, size, spread

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: table -->", "<!-- benchmarks: end -->"


def headline(results: Sequence[dict[str, Any]], of_gpus: Sequence[dict[str, Any]] = ()) -> str:
    """Markdown: a paragraph and a table for each machine, then for each GPU."""
    parts = [_machine_table(result) for result in results if _headlines(result)]
    parts += [_gpu_table(result) for result in of_gpus]
    if not of_gpus and not any(result["machine"]["device"] == "cuda" for result in results):
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
        "| Recorded | How | Bytes | Bare forward | Compared with | Its overhead | nntap's overhead | Ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in _headlines(result):
        rows = {row["contestant"]: row for row in case["rows"] if "skipped" not in row}
        lines += [_line(case["title"], rows, *pair) for pair in _pairs(rows)]
    return "\n".join(lines)


def _gpu_table(result: dict[str, Any]) -> str:
    machine = result["machine"]
    link = f"a raw copy of 1 GiB into pinned memory runs at {digits(result['link_gb_per_s'])} GB/s, the link"
    lines = [
        f"{machine['gpu']}, torch {machine['packages']['torch']}, Llama-8B-shaped bfloat16; {link}:",
        "",
        "| Case | Run | Time | Bytes | GB/s | Of the link | Figure | What it is |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_gpu_line(row) for row in result["rows"]])


def _gpu_line(row: dict[str, Any]) -> str:
    cells = [
        row["case"],
        row["what"],
        milliseconds(row["seconds"]),
        size(row["nbytes"]),
        "" if row["gb_per_s"] is None else digits(row["gb_per_s"]),
        "" if row["of_link"] is None else f"{row['of_link']:.2f}",
        spread(row["figure"]) if row["target"] else "",
        row["target"] + {None: "", True: ": met", False: ": missed"}[row["met"]],
    ]
    return f"| {' | '.join(cells)} |"


def _pairs(rows: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Who is compared with whom, and the ratio that says how it went."""
    for ours, theirs, ratio in (
        (ON_NNTAP, NNSIGHTS, "of_nnsight"),
        (CAPTURE, NNSIGHTS, "of_nnsight"),
        (ON_NNTAP, save_among(rows), "of_save"),
    ):
        if ours in rows and theirs in rows:
            yield ours, theirs, ratio


def _line(title: str, rows: dict[str, Any], ours: str, theirs: str, ratio: str) -> str:
    cells = [
        title,
        "under nnsight" if ours == ON_NNTAP else "stand-alone",
        size(rows[ours]["bytes_recorded"]),
        milliseconds(rows[BARE]["seconds"]["median"]),
        "nnsight's cache" if theirs == NNSIGHTS else f"`{theirs}` of each",
        milliseconds(rows[theirs]["added"]["median"]),
        milliseconds(rows[ours]["added"]["median"]),
        spread(rows[ours][ratio]),
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
