"""All that one run of the demo found."""

from __future__ import annotations

from dataclasses import dataclass

from nntap.demo.logit_lens import LogitLens
from nntap.demo.record import Recording
from nntap.demo.similarity import Similarity
from nntap.demo.subject import Batch, Subject
from nntap.demo.texts import Texts
from nntap.demo.timing import Timings


@dataclass(frozen=True)
class DemoResult:
    """`similarity` is None for a causal model and a single sentence, `lens` for any other model."""

    subject: Subject
    texts: Texts
    batch: Batch
    recording: Recording
    timings: Timings
    similarity: Similarity | None
    lens: LogitLens | None
