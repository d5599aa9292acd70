"""One line of the report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.timer import Spread

ABOVE = 1.05
"""A rate of bytes that crossed the link may seem higher than the link by this much, for noise; above it is a bug."""


@dataclass(frozen=True)
class Row:
    """What one contestant did.

    `samples`: the seconds of each run; `nbytes`: what one run moved, None for a run that records nothing. `of_link`:
    the rate over the link's, where the bytes crossed it. `figure` is what the target is about.
    """

    case: str
    what: str
    samples: Sequence[float]
    nbytes: int | None
    crossed: bool = True
    figure: Spread | None = None
    target: str = ""
    met: bool | None = None

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.samples)

    def as_dict(self, link: float) -> dict[str, Any]:
        rate = None if self.nbytes is None else self.nbytes / self.seconds
        of_link = rate / link if rate is not None and self.crossed else None
        return {
            **asdict(self),
            "seconds": self.seconds,
            "gb_per_s": None if rate is None else rate / 1e9,
            "of_link": of_link,
            "impossible": of_link is not None and of_link > ABOVE,
        }


def judged(row: Row, figure: Spread | None, target: str, met: bool | None) -> Row:
    """The row with its figure, what that is, and whether it meets its target; None where it has none."""
    return replace(row, figure=figure, target=target, met=met)
