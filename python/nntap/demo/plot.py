"""The demo's picture: curves of similarity over the layers, or the logit lens as a coloured grid."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import Any

from nntap.demo.errors import DemoError
from nntap.demo.extras import INSTALL, has
from nntap.demo.logit_lens import LogitLens
from nntap.demo.report import layer_name, shorten
from nntap.demo.result import DemoResult
from nntap.demo.similarity import Similarity

SUFFIXES = (".pdf", ".png", ".svg")
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e6bbf", "#c98b1b", "#4a4a4a", "#17a2b8", "#a0522d")
MAX_GROUPS = len(COLOURS)
MAX_COLUMNS = 8  # of the grid: more sentences would not be legible
DPI = 150


def check(path: Path) -> None:
    """Raises DemoError, before anything is run, if no plot can be written to `path`."""
    if path.suffix.lower() not in SUFFIXES:
        raise DemoError(f"--plot: {str(path)!r} has no known suffix. Allowed: {', '.join(SUFFIXES)}.")
    if path.is_dir():
        raise DemoError(f"--plot: {str(path)!r} is a folder. Give a file name.")
    if not path.absolute().parent.is_dir():
        raise DemoError(f"--plot: there is no folder {str(path.absolute().parent)!r} to write to.")
    if not has("matplotlib"):
        raise DemoError(f"--plot needs matplotlib, which is not installed. To get it: {INSTALL}")


def draw(result: DemoResult, path: Path) -> None:
    """Write the picture of `result` to `path`.

    Raises:
        DemoError: there is nothing to draw (one sentence), or the file cannot be written.
    """
    if result.lens is not None:
        figure = _grid(result.lens, result.subject.title)
    elif result.similarity is not None:
        figure = _curves(result.similarity, result.subject.title, result.subject.random_weights)
    else:
        raise DemoError("--plot: one sentence alone has nothing to be compared with. Give two or more in --text.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the font lacks a token's script: a box is drawn
            figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise DemoError(f"--plot: cannot write {str(path)!r}: {error.strerror or error}.") from None


def _curves(similarity: Similarity, title: str, random_weights: bool) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 5.0), layout="constrained")
    axes = figure.subplots()
    places = range(len(similarity.layers))
    for colour, group in zip(COLOURS, similarity.groups, strict=False):  # at most MAX_GROUPS
        columns = list(zip(*similarity.of_group(group), strict=True))
        for column in columns:
            axes.plot(places, column, color=colour, linewidth=0.8, alpha=0.35)
        label = "\n".join(textwrap.wrap(shorten(group, 60), 20))
        if len(columns) > 1:
            label += f"\n(mean of {len(columns)} pairs)"
        axes.plot(places, similarity.means(group), color=colour, linewidth=2.6, marker="o", label=label)
    names = [layer_name(name) for name in similarity.layers]
    turned = len(names) > 8
    axes.set_xticks(places, names, rotation=60 if turned else 0, ha="right" if turned else "center")
    axes.set_ylabel("cosine of the token means")
    axes.set_xlabel("hidden states after")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    count = len(similarity.groups)
    more = f"\nfirst {MAX_GROUPS} of {count} groups" if count > MAX_GROUPS else ""
    warning = "\nrandom weights: this means nothing" if random_weights else ""
    axes.set_title(f"How alike two sentences are, layer by layer{more}{warning}", loc="left", fontweight="bold")
    figure.supxlabel(title, fontsize=8, color="#666666", parse_math=False)
    legend = figure.legend(loc="outside right upper", frameon=False, labelspacing=1.0)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _grid(lens: LogitLens, title: str) -> Any:
    from matplotlib.figure import Figure

    columns = min(len(lens.sentences), MAX_COLUMNS)
    rows = len(lens.layers)
    figure = Figure(figsize=(2.6 + 1.9 * columns, 2.2 + 0.36 * rows), layout="constrained")
    axes = figure.subplots()
    values = [[top.probability for top in tokens[:columns]] for tokens in lens.tokens]
    image = axes.imshow(values, aspect="auto", origin="lower", cmap="Blues", vmin=0.0, vmax=1.0)
    for row, tokens in enumerate(lens.tokens):
        for column, top in enumerate(tokens[:columns]):
            dark = top.probability > 0.55
            text = shorten(repr(top.text), 18)
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "#222222",
                parse_math=False,
            )
    axes.set_yticks(range(rows), [layer_name(name) for name in lens.layers])
    labels = ["\n".join(textwrap.wrap(shorten(sentence, 60), 22)) for sentence in lens.sentences[:columns]]
    axes.set_xticks(range(columns), labels, fontsize=8, parse_math=False)
    axes.set_xticks([column + 0.5 for column in range(columns - 1)], minor=True)
    axes.set_yticks([row + 0.5 for row in range(rows - 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="probability", shrink=0.8, aspect=30, pad=0.02)
    more = f" (first {columns} of {len(lens.sentences)} sentences)" if columns < len(lens.sentences) else ""
    axes.set_title(f"Logit lens: the likeliest next token after every layer{more}", loc="left", fontweight="bold")
    figure.supxlabel(title, fontsize=8, color="#666666", parse_math=False)
    return figure
