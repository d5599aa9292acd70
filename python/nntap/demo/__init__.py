"""`nntap demo`: record every layer of a real model on real sentences, offline, and read the records."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import torch

from nntap.demo import plot as picture
from nntap.demo.errors import DemoError
from nntap.demo.logit_lens import LogitLens, read_lens
from nntap.demo.pretrained import load
from nntap.demo.progress import Progress
from nntap.demo.record import Recording, record_forward
from nntap.demo.report import show
from nntap.demo.result import DemoResult
from nntap.demo.similarity import Similarity, compare
from nntap.demo.subject import Batch, Subject
from nntap.demo.texts import Texts, bundled, read
from nntap.demo.timing import measure

__all__ = ["DemoError", "DemoResult", "main", "run", "show"]


def main(model: str | None, text: Path | None, plot: Path | None, file: TextIO) -> DemoResult:
    """Run the demo, write its report to `file` and its plot to `plot`.

    Raises:
        DemoError: bad input, or a part that is missing.
    """
    if plot is not None:
        picture.check(plot)
    result = run(model, text)
    show(result, file)
    if plot is not None:
        picture.draw(result, plot)
        print(f"Plot: {plot}", file=file)
    return result


def run(model: str | None = None, text: Path | None = None) -> DemoResult:
    """Load the model, record one forward, read it and time it.

    Args:
        model: a folder or a model ID (see `pretrained.load`); None is MiniLM.
        text: a file of sentences (see `texts.read`); None is the bundled ones.
    """
    progress = Progress()
    texts = None if text is None else read(text)
    with progress.step("loading the model"):
        subject = load(model)
    if texts is None:
        texts = bundled("prompts.txt" if subject.causal else "sentences.txt")
    batch = subject.encode(texts.sentences)
    try:
        with progress.step("recording"):
            _check_forward(subject, batch)
            recording = record_forward(subject, batch)
            alike, lens = _read_layers(subject, texts, batch, recording)
        timings = measure(subject, batch, progress)
    except MemoryError as error:
        raise DemoError(f"There is not enough host memory: {error} Give fewer or shorter sentences.") from error
    return DemoResult(subject, texts, batch, recording, timings, alike, lens)


def _check_forward(subject: Subject, batch: Batch) -> None:
    """Raises DemoError, before anything is recorded, if the model cannot run on these inputs."""
    try:
        with torch.no_grad():
            subject.model(**batch.inputs)
    except MemoryError:
        raise
    except Exception as error:
        raise DemoError(
            f"--model: the forward of {subject.title} fails on {', '.join(batch.inputs)}: {error}"
        ) from error


def _read_layers(
    subject: Subject, texts: Texts, batch: Batch, recording: Recording
) -> tuple[Similarity | None, LogitLens | None]:
    if subject.causal and subject.decode is not None:
        return None, read_lens(subject.model, recording, batch.mask, texts.sentences, subject.decode)
    if texts.pairs:
        return compare(recording.layers, batch.mask, texts.sentences, texts.pairs), None
    return None, None
