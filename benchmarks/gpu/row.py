"""One line of the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ABOVE = 1.05
"""A rate of bytes that crossed the link may seem higher than the link by this much, for noise; above it is a bug."""


@dataclass(frozen=True)
class Row:
    """`of_link`: the rate over the link's, where the bytes crossed it. `figure` is what the target is about."""

    case: str
    what: str
    seconds: float
    nbytes: int
    crossed: bool = True
    figure: float | None = None
    target: str = ""
    met: bool | None = None

    def gb_per_s(self) -> float:
        return self.nbytes / self.seconds / 1e9

    def as_dict(self, link: float) -> dict[str, Any]:
        rate = self.nbytes / self.seconds
        return {
            **asdict(self),
            "gb_per_s": rate / 1e9,
            "of_link": rate / link if self.crossed else None,
            "impossible": self.crossed and rate > ABOVE * link,
        }


def judged(row: Row, figure: float, target: str, met: bool | None) -> Row:
    """The row with its figure, what that is, and whether it meets its target; None where it has none."""
    return Row(row.case, row.what, row.seconds, row.nbytes, row.crossed, figure, target, met)
