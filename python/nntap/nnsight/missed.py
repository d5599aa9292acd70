"""nnsight 0.6 and 0.7 warn when a module that a cache named was never called."""

from __future__ import annotations

from nntap.core import INPUTS, OUTPUT
from nntap.nnsight.adapter import Recording


class Missed:
    """The part of nnsight's own cache object that this warning reads."""

    def __init__(self, recording: Recording) -> None:
        everything = recording.paths is recording.model.known.paths
        self.modules = None if everything else set(recording.paths)
        self.cache = recording.cache
        self.include_output = OUTPUT in recording.slots
        self.include_inputs = INPUTS in recording.slots
