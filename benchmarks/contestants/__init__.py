"""The ways to record a forward that are timed against each other, in the order of tables and pictures."""

from collections.abc import Container

from benchmarks.contestants import libraries, plain, under_nnsight
from benchmarks.contestants.way import Contestant, Location, Records, Request, Way

BARE = "bare forward"
CAPTURE = "nntap.capture"
ON_NNTAP = "tracer.cache() on nntap"
NNSIGHTS = "tracer.cache() of nnsight"
OURS = (CAPTURE, ON_NNTAP)
SAVE = ".output.save()"
SAVE_MOVED = ".output.cpu().save()"
SAVES = (SAVE, SAVE_MOVED)

CONTESTANTS = (
    Contestant(BARE, plain.bare),
    Contestant(CAPTURE, plain.capture),
    Contestant(ON_NNTAP, under_nnsight.cache_on_nntap, "nnsight"),
    Contestant(NNSIGHTS, under_nnsight.cache, "nnsight"),
    Contestant("an empty trace of nnsight", under_nnsight.nothing, "nnsight"),
    Contestant(SAVE, under_nnsight.save, "nnsight"),
    Contestant(SAVE_MOVED, under_nnsight.save_moved, "nnsight"),
    Contestant("hooks with .cpu()", plain.hooks_to_device),
    Contestant("hooks with a copy", plain.hooks_with_clone),
    Contestant("hooks with pinned copies", plain.hooks_with_pinned_copies),
    Contestant("TraceDict", plain.trace_dict),
    Contestant("output_hidden_states=True", libraries.hidden_states, "transformers"),
    Contestant("TransformerLens run_with_cache", libraries.run_with_cache, "transformer_lens"),
    Contestant("torchvision feature extraction", libraries.feature_extraction, "torchvision"),
)


def save_among(names: Container[str]) -> str:
    """Which of them stands for `.save()`: the one that moves only where nothing else would do; "" where none does."""
    return next((save for save in SAVES if save in names), "")


__all__ = [
    "BARE",
    "CAPTURE",
    "CONTESTANTS",
    "NNSIGHTS",
    "ON_NNTAP",
    "OURS",
    "SAVE",
    "SAVES",
    "SAVE_MOVED",
    "Contestant",
    "Location",
    "Records",
    "Request",
    "Way",
    "save_among",
]
