"""Pictures of a result, from its JSON and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import BARE, CAPTURE, NNSIGHTS, ON_NNTAP, OURS
from benchmarks.show import milliseconds, size
from benchmarks.timeline import Span, lanes

OUR_COLOUR, NNSIGHT_COLOUR, OTHER_COLOUR = "#0b6e4f", "#c1440e", "#8a8f98"
MOST_PANELS = 6
IN_SCATTER = {
    CAPTURE: (OUR_COLOUR, "o"),
    ON_NNTAP: ("#6aa84f", "s"),
    NNSIGHTS: (NNSIGHT_COLOUR, "^"),
    "hooks with a copy": (OTHER_COLOUR, "x"),
    "hooks with pinned copies": ("#3d5a80", "D"),
}
OF_KIND = {
    "run": "#444a54",
    "compute": OTHER_COLOUR,
    "compute on the GPU": OTHER_COLOUR,
    "snapshot": OUR_COLOUR,
    "copies": "#3d5a80",
    "waits": NNSIGHT_COLOUR,
    "other": "#7a5c99",
}
LEAST_LABELLED = 0.03
"""Of the run's length: what a shorter span is called has no room in it."""


def draw(result: dict[str, Any], folder: Path, stem: str) -> list[Path]:
    """Draws every picture that the result has figures for; returns the files."""
    made = []
    for name, figure in (
        ("contestants", by_contestant(result)),
        ("bytes", by_bytes(result)),
        ("steps", by_steps(result)),
    ):
        if figure is not None:
            path = folder / f"{stem}-{name}.png"
            save(figure, path)
            made.append(path)
    return made


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def by_contestant(result: dict[str, Any]) -> Any | None:
    """Bars: what each contestant adds to the bare run, for the cases that most took part in."""
    cases = sorted((case for case in result["cases"] if len(_added(case)) > 2), key=lambda case: -len(_added(case)))
    if not cases:
        return None
    figure = _figure(11, 0.8 + 2.4 * ((min(len(cases), MOST_PANELS) + 1) // 2))
    panels = figure.subplots((min(len(cases), MOST_PANELS) + 1) // 2, min(2, len(cases)), squeeze=False).flat
    for axes, case in zip(panels, cases, strict=False):
        _bars(axes, case)
    for axes in list(panels)[len(cases) :]:
        axes.set_visible(False)
    figure.suptitle("What recording adds to a run (bars: medians, lines: quartiles)", fontweight="bold")
    figure.supxlabel(_machine(result), fontsize=8, color="#666666")
    return figure


def _bars(axes: Any, case: dict[str, Any]) -> None:
    rows = _added(case)[::-1]
    names = [row["contestant"] for row in rows]
    middle = [row["added"]["median"] * 1e3 for row in rows]
    low = [max(0.0, (row["added"]["median"] - row["added"]["low"]) * 1e3) for row in rows]
    high = [max(0.0, (row["added"]["high"] - row["added"]["median"]) * 1e3) for row in rows]
    axes.barh(names, middle, xerr=(low, high), color=[_colour(name) for name in names], ecolor="#444444", height=0.7)
    axes.set_title(case["title"], fontsize=9, loc="left")
    bare = next(row for row in case["rows"] if row["contestant"] == BARE)["seconds"]["median"]
    axes.set_xlabel(f"ms added to {milliseconds(bare)}", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def by_bytes(result: dict[str, Any]) -> Any | None:
    """Points: added time over bytes recorded, all cases, with the line that no copy can be below."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in IN_SCATTER}
    for case in result["cases"]:
        for row in _added(case):
            if row["contestant"] in points and row["bytes_recorded"] and row["added"]["low"] > 0:
                points[row["contestant"]].append((row["bytes_recorded"], row["added"]["median"] * 1e3))
    every = [x for series in points.values() for x, _ in series]
    if not every:
        return None
    figure = _figure(8, 5.5)
    axes = figure.subplots()
    for name, series in points.items():
        if series:
            colour, marker = IN_SCATTER[name]
            axes.scatter(*zip(*series, strict=True), c=colour, marker=marker, label=name, s=28, alpha=0.85)
    rate = max(case["peak"][-1][1] for case in result["cases"] if "peak" in case)
    ends = [min(every), max(every)]
    what = "the link" if result["machine"]["device"] == "cuda" else "copies in memory"
    label = f"{what}: {rate / 1e9:.0f} GB/s"
    axes.plot(ends, [end / rate * 1e3 for end in ends], color="black", linewidth=1, linestyle="--", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: _power(value))
    axes.set_xlabel("bytes recorded in a run")
    axes.set_ylabel("ms added to the bare run")
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("Cost by bytes", loc="left", fontweight="bold")
    figure.supxlabel(_machine(result), fontsize=8, color="#666666")
    return figure


def by_steps(result: dict[str, Any]) -> Any | None:
    """Lines: what is added per step of a generation, over its number of steps. They must not rise."""
    series: dict[str, list[tuple[float, float]]] = {}
    for case in result["cases"]:
        if steps := case.get("steps"):
            for row in _added(case):
                series.setdefault(row["contestant"], []).append((steps, row["added"]["median"] / steps * 1e3))
    if not series or max(map(len, series.values())) < 2:
        return None
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    for name, line in series.items():
        axes.plot(*zip(*sorted(line), strict=True), marker="o", label=name, color=IN_SCATTER.get(name, (None,))[0])
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("new tokens")
    axes.set_ylabel("ms added per step")
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("What a step costs, by the number of steps", loc="left", fontweight="bold")
    figure.supxlabel(_machine(result), fontsize=8, color="#666666")
    return figure


def by_time(timeline: dict[str, Any]) -> Any:
    """Lanes: what each thread did when, with the time and the bytes of each lane, and of each span that has room."""
    rows = lanes(timeline)
    figure = _figure(14, 1.2 + 0.75 * len(rows))
    axes = figure.subplots()
    for row, ((kind, _), spans) in enumerate(rows.items()):
        _lane(axes, row, spans, OF_KIND[kind], LEAST_LABELLED * timeline["length_ns"])
    names = [f"{kind} ({thread})\n{len(spans)}: {_cost(spans)}" for (kind, thread), spans in rows.items()]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, timeline["length_ns"] / 1e6)
    axes.set_xlabel("ms since the run began", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"One recorded run: {timeline['title']}", fontweight="bold")
    figure.supxlabel(_machine(timeline), fontsize=8, color="#666666")
    return figure


def _lane(axes: Any, row: int, spans: Sequence[Span], colour: str, least_labelled: float) -> None:
    bars = [(span.begin_ns / 1e6, (span.end_ns - span.begin_ns) / 1e6) for span in spans]
    shades = [(colour, 1.0 if index % 2 else 0.8) for index in range(len(spans))]  # neighbours touch
    # The edge keeps a bar in sight that is narrower than a pixel.
    axes.broken_barh(bars, (row - 0.4, 0.8), facecolors=shades, edgecolors="face", linewidth=0.6)
    for span in spans:
        if span.end_ns - span.begin_ns >= least_labelled:
            middle = (span.begin_ns + span.end_ns) / 2e6
            text = "\n".join([".".join(span.name.split(".")[-2:]), *_cost([span]).split(", ")])
            axes.text(middle, row, text, ha="center", va="center", fontsize=6, color="white", clip_on=True)


def _cost(spans: Sequence[Span]) -> str:
    """The time and the bytes of these together."""
    took = milliseconds(sum(span.end_ns - span.begin_ns for span in spans) / 1e9)
    count = sum(span.bytes for span in spans)
    return f"{took}, {size(count)}" if count else took


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _added(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in case["rows"] if "added" in row]


def _colour(name: str) -> str:
    if name in OURS:
        return OUR_COLOUR
    return NNSIGHT_COLOUR if name == NNSIGHTS else OTHER_COLOUR


def _power(value: float) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    threads = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    clock = ", processor time" if result["settings"]["clock"] == "process" else ""
    return (
        f"{machine.get('gpu') or machine['cpu']}, {threads}, torch {machine['packages']['torch']}, "
        f"nnsight {machine['packages'].get('nnsight', 'not installed')}{clock}"
    )
