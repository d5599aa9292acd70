"""A progress bar for what takes over a second: with rich, and on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from nntap.demo.extras import has

T = TypeVar("T")


class Progress:
    """Bars on `file` (standard error unless told), gone when they are done."""

    def __init__(self, file: TextIO | None = None) -> None:
        file = sys.stderr if file is None else file
        self._bars: Any = None
        if file.isatty() and has("rich"):
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(console=Console(file=file), transient=True)

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """A bar that only moves, while something of unknown length runs."""
        if self._bars is None:
            yield
            return
        with self._bars:
            task = self._bars.add_task(label, total=None)
            try:
                yield
            finally:
                self._bars.remove_task(task)

    def track(self, items: Sequence[T], label: str) -> Iterator[T]:
        """The items, with a bar that fills."""
        if self._bars is None:
            yield from items
            return
        with self._bars:
            task = self._bars.add_task(label, total=len(items))
            for item in items:
                yield item
                self._bars.advance(task)
            self._bars.remove_task(task)
