"""The sentences that go into the model: the bundled ones, or those of the user's file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nntap.demo.errors import DemoError

MAX_LINES = 64
FORMAT = "one sentence a line, or two sentences with a TAB between them"


@dataclass(frozen=True)
class Pair:
    """Two sentences to compare. `group` is the heading they stand under, e.g. "paraphrase"."""

    group: str
    first: str
    second: str


@dataclass(frozen=True)
class Texts:
    """What was read: every different sentence once, in order, and the pairs among them."""

    source: str
    sentences: tuple[str, ...]
    pairs: tuple[Pair, ...]


def bundled(name: str) -> Texts:
    """The text file `name` that comes with the package."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return parse(lines, f"the bundled {name}")


def read(path: Path) -> Texts:
    """The sentences of a UTF-8 text file.

    A line that starts with "# " is a heading: it names the group of the pairs below it. Empty lines are
    skipped. Without any pair, the first sentence is compared with each of the others.

    Raises:
        DemoError: the file is missing, unreadable, not UTF-8, empty, too long, or has a bad line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DemoError(f"--text: there is no file {str(path)!r}.") from None
    except IsADirectoryError:
        raise DemoError(f"--text: {str(path)!r} is a folder. Give a text file: {FORMAT}.") from None
    except OSError as error:
        raise DemoError(f"--text: cannot read {str(path)!r}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DemoError(
            f"--text: {str(path)!r} is not UTF-8 (byte {error.object[error.start]:#04x} in line {line}). "
            "Save it as UTF-8."
        ) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Texts:
    """`text` in the format of `read`."""
    sentences: dict[str, None] = {}  # an ordered set
    pairs: list[Pair] = []
    group = "pairs"
    lines = list(_lines(text))
    if len(lines) > MAX_LINES:
        raise DemoError(f"--text: {source!r} has {len(lines)} lines. At most {MAX_LINES} are allowed.")
    for number, line in lines:
        if line.startswith("# "):
            group = line[2:].strip()
            continue
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) > 2 or not all(parts):
            raise DemoError(f"--text: line {number} of {source!r} is {line!r}. Allowed is {FORMAT}.")
        sentences.update(dict.fromkeys(parts))
        if len(parts) == 2:
            pairs.append(Pair(group, parts[0], parts[1]))
    if not sentences:
        raise DemoError(f"--text: {source!r} has no sentence. Write {FORMAT}.")
    first, *others = sentences
    if not pairs:
        pairs = [Pair("first sentence with each other", first, other) for other in others]
    return Texts(source, tuple(sentences), tuple(pairs))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip(" ")
