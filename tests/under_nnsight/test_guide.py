"""The sections of nnsight's cache guide as a user writes them: the same keys, steps and shapes on every nnsight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import models
from models import PROMPT

WIDTH, VOCABULARY = 768, 50257


@pytest.fixture(scope="module")
def gpt2() -> Any:
    """The guide's model in its full size."""
    return models.gpt2_language_model(full_size=True)


def hidden(output: Any) -> torch.Tensor:
    """A block's hidden states: transformers 4 gives back a tuple, transformers 5 a tensor."""
    assert isinstance(output, tuple) == transformers.__version__.startswith("4.")
    return output[0] if isinstance(output, tuple) else output


def test_all_modules(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache()

    assert len(cache.keys()) == 151
    assert list(cache.keys())[:5] == [
        "model.transformer.wte",
        "model.transformer.wpe",
        "model.transformer.drop",
        "model.transformer.h.0.ln_1",
        "model.transformer.h.0.attn.c_attn",
    ]
    assert hidden(cache["model.transformer.h.0"].output).shape == (1, 10, WIDTH)


def test_selective_by_envoy(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(
            modules=[
                model.transformer.h[0],
                model.transformer.h[5],
                model.transformer.h[11],
                model.lm_head,
            ]
        )

    assert list(cache.keys()) == [
        "model.transformer.h.0",
        "model.transformer.h.5",
        "model.transformer.h.11",
        "model.lm_head",
    ]


def test_selective_by_path(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[f"model.transformer.h.{i}.attn" for i in range(12)])

    assert list(cache.keys()) == [f"model.transformer.h.{i}.attn" for i in range(12)]


def test_outputs_and_inputs(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(
            modules=[model.transformer.h[0], model.transformer.h[1]],
            include_inputs=True,
        )

    first, second = cache["model.transformer.h.0"], cache["model.transformer.h.1"]
    assert torch.equal(hidden(first.output), second.input)
    args, kwargs = second.inputs
    assert args[0] is second.input
    assert isinstance(kwargs, dict)


def test_inputs_alone(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.lm_head], include_inputs=True, include_output=False)

    assert cache["model.lm_head"].input.shape == (1, 10, WIDTH)
    assert cache["model.lm_head"].output is None


def test_logit_lens(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=list(model.transformer.h))
        logits = model.lm_head.output.save()

    device = next(model.transformer.ln_f.parameters()).device
    with torch.no_grad():
        for i in range(12):
            states = hidden(cache[f"model.transformer.h.{i}"].output).to(device)
            lens = model.lm_head(model.transformer.ln_f(states))
            assert isinstance(model.tokenizer.decode(lens[0, -1].argmax(dim=-1)), str)
    assert torch.allclose(lens, logits, atol=1e-6)


def test_generation(gpt2: Any) -> None:
    model = gpt2
    with model.generate("The Eiffel Tower is in", max_new_tokens=4) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[-1]])

    entries = cache["model.transformer.h.11"]
    assert len(entries) == 4
    shapes = []
    for i, entry in enumerate(entries):
        shapes.append((i, hidden(entry.output).shape))
    assert shapes == [(0, (1, 7, WIDTH)), (1, (1, 1, WIDTH)), (2, (1, 1, WIDTH)), (3, (1, 1, WIDTH))]


def test_the_newer_habits_after_generation(gpt2: Any) -> None:
    model = gpt2
    with model.generate("The Eiffel Tower is in", max_new_tokens=3) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[0], model.lm_head])

    assert len(cache.transformer.h[0]) == 3
    outputs = cache.transformer.h[0].output
    assert isinstance(outputs, list)
    assert [hidden(output).shape[1] for output in outputs] == [7, 1, 1]
    assert torch.equal(hidden(cache.transformer.h[0][-1].output), hidden(outputs[-1]))
    assert [step.output.shape[1] for step in cache.lm_head] == [output.shape[1] for output in cache.lm_head.output]


def test_verifying_an_intervention(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[model.transformer.h[5]])
        hidden(model.transformer.h[5].output)[:] = 0

    assert torch.all(hidden(cache["model.transformer.h.5"].output) == 0).item()


def test_several_caches(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        attn_cache = tracer.cache(modules=[layer.attn for layer in model.transformer.h])
        mlp_cache = tracer.cache(modules=[layer.mlp for layer in model.transformer.h])

    assert len(attn_cache.keys()) == len(mlp_cache.keys()) == 12
    assert next(iter(attn_cache.keys())) == "model.transformer.h.0.attn"
    assert next(iter(mlp_cache.keys())) == "model.transformer.h.0.mlp"


def test_device_and_dtype(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(
            modules=list(model.transformer.h),
            device=torch.device("cpu"),
            dtype=torch.float16,
        )
        full = tracer.cache(modules=list(model.transformer.h), device=None)

    sample = hidden(cache["model.transformer.h.0"].output)
    assert (sample.device.type, sample.dtype, sample.shape) == ("cpu", torch.float16, (1, 10, WIDTH))
    assert torch.equal(sample, hidden(full["model.transformer.h.0"].output).half())


def test_access_patterns(gpt2: Any) -> None:
    model = gpt2
    with model.trace(PROMPT) as tracer:
        cache = tracer.cache(modules=[*model.transformer.h, model.lm_head])

    a = hidden(cache["model.transformer.h.0"].output)
    b = hidden(cache.model.transformer.h[0].output)
    c = hidden(cache.transformer.h[0].output)
    d = hidden(cache["transformer"].h[0].output)
    assert a is b is c is d
    assert cache.model.lm_head.output.shape == (1, 10, VOCABULARY)
    assert "model.lm_head" in cache
    assert "model.transformer.wte" not in cache
    with pytest.raises(KeyError, match=r"model\.lm_head"):
        cache["model.lm_haed"]
