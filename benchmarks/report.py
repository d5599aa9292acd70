"""A result as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.contestants import BARE
from benchmarks.show import digits, milliseconds, size

COLUMNS = (
    "",
    "adds",
    "quartiles",
    "of nnsight's",
    "nntap's of it",
    "recorded",
    "moved",
    "GB/s",
    "of peak",
    "RAM",
    "right",
    "in place",
)


def show(result: dict[str, Any], console: Any) -> None:
    """A table a case, and what was skipped and why."""
    for case in result["cases"]:
        if not case["rows"]:
            why = f"broken: {case['broken']}" if "broken" in case else f"skipped: {case['skipped']}"
            console.print(f"[bold]{case['title']}[/bold]\n{why}\n", highlight=False)
            continue
        console.print(_table(case))
        for row in case["rows"]:
            if "skipped" in row:
                console.print(f"  {row['contestant']}: skipped, {row['skipped']}", highlight=False, style="dim")
        console.print()


def _table(case: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    bare = next(row for row in case["rows"] if row["contestant"] == BARE)
    title = f"{case['title']} (bare: {milliseconds(bare['seconds']['median'])}, {case['rounds']} rounds)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, title_style="bold")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in case["rows"]:
        if "skipped" not in row and row["contestant"] != BARE:
            table.add_row(*_cells(row, bare))
    return table


def _cells(row: dict[str, Any], bare: dict[str, Any]) -> Iterator[str]:
    more = row["added"]
    yield row["contestant"]
    yield milliseconds(more["median"])
    yield f"{digits(more['low'] * 1e3)} to {digits(more['high'] * 1e3)}"
    yield _ratio(row["of_nnsight"])
    yield _ratio(row["nntap_of_it"])
    yield size(row["bytes_recorded"])
    yield size(row["bytes_moved"])
    yield "" if row["bytes_a_second"] is None else digits(row["bytes_a_second"] / 1e9)
    yield "" if row["of_peak"] is None else f"{row['of_peak']:.0%}{' !' if row['impossible'] else ''}"
    yield _more_memory(row, bare)
    yield _right(row)
    yield "" if row["right_in_place"] is None else f"{row['right_in_place']:.0%}"


def _ratio(ratio: dict[str, float] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f}"


def _more_memory(row: dict[str, Any], bare: dict[str, Any]) -> str:
    if row["peak_host_bytes"] is None or bare["peak_host_bytes"] is None:
        return ""
    return size(row["peak_host_bytes"] - bare["peak_host_bytes"])


def _right(row: dict[str, Any]) -> str:
    whole = row["right"] + row["wrong"] + row["missing"]
    return f"{row['right']}/{whole}" if whole else ""
