"""Tables and progress, on a terminal and off it."""

from __future__ import annotations

import io
from collections.abc import Callable

from nntap.demo import tables
from nntap.demo.progress import Progress

TABLE = tables.Table("A title", [tables.Column("name"), tables.Column("n", True)], [("[bold]x", "1"), ("y", "22")])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_without_rich_is_plain_columns(hide: Callable[..., None]) -> None:
    hide("rich")
    out = Terminal()
    tables.print_table(TABLE, out)
    assert out.getvalue() == "A title\nname      n\n-------  --\n[bold]x   1\ny        22\n\n"


def test_a_table_on_a_terminal_is_drawn_by_rich_and_keeps_what_looks_like_markup() -> None:
    out = Terminal()
    tables.print_table(TABLE, out)
    assert "─" in out.getvalue()
    assert "[bold]x" in out.getvalue()


def test_progress_is_shown_on_a_terminal_only(hide: Callable[..., None]) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for file in (pipe, terminal):
        progress = Progress(file)
        with progress.step("loading"):
            pass
        assert list(progress.track([1, 2], "measuring")) == [1, 2]
    assert pipe.getvalue() == ""
    assert "measuring" in terminal.getvalue()
    hide("rich")
    without_rich = Terminal()
    assert list(Progress(without_rich).track([1, 2], "measuring")) == [1, 2]
    assert without_rich.getvalue() == ""
