"""A table as text: drawn by rich on a terminal, else (or without rich) in plain columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from nntap.demo.extras import has


@dataclass(frozen=True)
class Column:
    """A heading; `right` aligns numbers."""

    name: str
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text cells under a title."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def print_table(table: Table, file: TextIO) -> None:
    """Write the table and an empty line to `file`."""
    if file.isatty() and has("rich"):
        _draw(table, file)
    else:
        print(plain(table), file=file)
    print(file=file)


def plain(table: Table) -> str:
    """The table in plain columns, two spaces apart."""
    lines = [[column.name for column in table.columns], *table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    lines.insert(1, ["-" * width for width in widths])
    texts = [
        "  ".join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *texts])


def _draw(table: Table, file: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=file)
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        drawn.add_column(Text(column.name), justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))  # Text, not str: a token may look like rich's markup
    console.print(Text(table.title, style="bold"))  # apart, so that it is not folded to the table's width
    console.print(drawn)
