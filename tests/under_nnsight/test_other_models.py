"""Models of every kind that nnsight takes: each record is what a hook's clone of the same run says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

import models
from comparing import assert_alike
from helpers import clones_of_outputs
from models import PROMPT

IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


# What nnsight itself adds to a model, and a module at three places, which nnsight 0.6 calls by the last of them.
LEFT_OUT = ("generator", "shared")


def assert_recorded(cache: Any, clones: dict[str, list[Any]]) -> None:
    """Every module's every output."""
    clones = {path: outputs for path, outputs in clones.items() if path.split(".")[0] not in LEFT_OUT}
    paths = [f"model.{path}" if path else "model" for path in clones]
    assert [path for path in cache if path in paths] == paths
    for path, outputs in zip(paths, clones.values(), strict=True):
        assert_alike(outputs, [step.output for step in cache[path]], {})


@pytest.mark.parametrize("make", [models.in_place, models.looped])
def test_a_plain_module(make: Any) -> None:
    model = make()
    with clones_of_outputs(model._module) as clones:
        with model.trace(torch.ones(2, 4)) as tracer:
            cache = tracer.cache()
    assert_recorded(cache, clones)


@pytest.mark.filterwarnings("ignore:Module .* has pre-defined")  # a ViT has modules that are called "output"
@pytest.mark.parametrize("make", [models.vit, models.resnet])
def test_a_vision_model(make: Any) -> None:
    model = make()
    with clones_of_outputs(model._module) as clones:
        with model.trace(IMAGES) as tracer:
            cache = tracer.cache()
    assert_recorded(cache, clones)
    assert len(clones) > 30


def test_an_encoder_decoder() -> None:
    model = models.t5_language_model()
    start = torch.tensor([[0, 5]])
    with clones_of_outputs(model._module) as clones:
        with model.trace(PROMPT, decoder_input_ids=start) as tracer:
            cache = tracer.cache()
    assert_recorded(cache, clones)
    assert cache.encoder.block[0].output[0].shape == (1, 10, 32)
    assert cache.decoder.block[0].output[0].shape == (1, 2, 32)


def test_an_encoder_decoder_that_generates() -> None:
    model = models.t5_language_model()
    with clones_of_outputs(model._module) as clones:
        with model.generate(PROMPT, max_new_tokens=3) as tracer:
            cache = tracer.cache()
    assert_recorded(cache, clones)
    assert (len(cache.encoder.block[0]), len(cache.decoder.block[0])) == (1, 3)


@pytest.mark.filterwarnings("ignore:VisionLanguageModel is deprecated")
def test_a_vision_language_model() -> None:
    image = Image.new("RGB", (20, 20), (200, 30, 90))
    model = models.llava_vision_language_model()
    with clones_of_outputs(model._module) as clones:
        with model.trace("<image> The Tower", images=[image]) as tracer:
            cache = tracer.cache()
    assert_recorded(cache, clones)
    vision = [path for path in cache if ".vision_tower." in path]
    text = [path for path in cache if ".language_model." in path]
    assert len(vision) > 20
    assert len(text) > 20
