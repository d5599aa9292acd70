"""`--text`: sentences of one's own, and what is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_folders import write

from nntap import cli, demo
from nntap.demo import texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "has no sentence"),
        (b" \n\n# only a heading\n", "has no sentence"),
        (b"fine\nnot fine \xff\xfe\n", r"is not UTF-8 \(byte 0xff in line 2\)"),
        (b"one\ttwo\tthree\n", "line 1 of .* is 'one.*three'. Allowed is one sentence a line"),
        (b"one\t\n", "line 1 of"),
        (b"\n".join(b"line %d" % n for n in range(65)), "has 65 lines. At most 64 are allowed"),
        (b"word " * 600, "a sentence has 602 tokens; the model takes 512"),
    ],
    ids=[
        "missing",
        "empty",
        "heading only",
        "not utf-8",
        "three columns",
        "half a pair",
        "long",
        "long sentence",
    ],
)
def test_a_bad_text_file_is_told(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["demo", "--text", str(path)]) == 2
    captured = capsys.readouterr()
    assert re.search(f"nntap demo: error: --text.*{message}", captured.err)


def test_a_folder_given_as_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match="is a folder"):
        texts.read(tmp_path)


def test_text_is_read_as_pairs_headings_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffa\tb\r\n\r\n# near\r\nc \t d\r\na\r\n#hash\r\n".encode())
    read = texts.read(path)
    assert read.sentences == ("a", "b", "c", "d", "#hash")
    assert read.pairs == (texts.Pair("pairs", "a", "b"), texts.Pair("near", "c", "d"))


def test_single_sentences_are_compared_with_the_first(tmp_path: Path) -> None:
    read = texts.read(write(tmp_path / "text.txt", "a\nb\nc\n"))
    assert [(pair.first, pair.second) for pair in read.pairs] == [("a", "b"), ("a", "c")]
