"""`--plot`: pictures, and where they cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nntap import cli, demo
from nntap.demo import plot


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_plot_of_similarities_is_written(minilm: demo.DemoResult, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    plot.draw(minilm, path)
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(magic)
    assert path.stat().st_size > 5000


def test_the_curves_are_the_similarities(minilm: demo.DemoResult) -> None:
    alike = minilm.similarity
    assert alike is not None
    (axes,) = plot._curves(alike, "title", random_weights=False).axes
    thick = [line for line in axes.lines if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in thick] == [alike.means(group) for group in alike.groups]


def test_the_plot_of_a_logit_lens_is_written_by_the_command(gpt2_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lens.png"
    assert cli.main(["demo", "--model", str(gpt2_folder), "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.gif", "Allowed: .pdf, .png, .svg"),
        ("no/such/out.png", "there is no folder"),
        ("x.png/", "is a folder"),
    ],
)
def test_a_plot_that_cannot_be_written_is_told_before_the_run(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").mkdir()
    assert cli.main(["demo", "--plot", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_plot_without_matplotlib_is_told_before_the_run(
    hide: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("matplotlib")
    assert cli.main(["demo", "--plot", str(tmp_path / "out.png")]) == 2
    captured = capsys.readouterr()
    assert 'needs matplotlib, which is not installed. To get it: pip install "nntap[demo]"' in captured.err
    assert captured.out == ""
