"""`--model`: models of one's own, and what is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from made_folders import CAUSAL, SIZES, save_tokenizer, write

from nntap import cli, demo
from nntap.demo import pretrained


@pytest.mark.parametrize(
    ("config", "causal"),
    [
        (transformers.GPT2Config(), True),
        (transformers.LlamaConfig(), True),
        (transformers.BertConfig(), False),
        (transformers.BertConfig(is_decoder=True), True),
        (transformers.BertConfig(architectures=["BertLMHeadModel"]), True),
        (transformers.BertConfig(architectures=["BertModel"]), False),
        (transformers.GPT2Config(architectures=["GPT2LMHeadModel"]), True),
        (transformers.GPT2Config(architectures=["GPT2Model"]), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_causal_models_are_told_by_their_config(config: transformers.PreTrainedConfig, causal: bool) -> None:
    assert pretrained.is_causal(config) is causal


def test_a_block_called_many_times_is_a_layer_each_time(tmp_path: Path) -> None:
    config = transformers.AlbertConfig(**SIZES, embedding_size=16, intermediate_size=64)
    transformers.AlbertModel(config).eval().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    text = write(tmp_path / "text.txt", "the cat sat\tthe dog ran")
    result = demo.run(str(tmp_path), text)
    with torch.no_grad():
        expected = result.subject.model(**result.batch.inputs, output_hidden_states=True).hidden_states
    assert [layer.name for layer in result.recording.layers] == [
        "embeddings",
        "0, call 0",
        "0, call 1",
        "0, call 2",
    ]
    for layer, hidden in zip(result.recording.layers, expected, strict=True):
        assert torch.equal(layer.hidden, hidden)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    transformers.T5Config(num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(demo.DemoError, match=r"encoder-decoder \(t5\)"):
        demo.run(str(tmp_path))


def test_weights_that_are_missing_from_the_files_are_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, intermediate_size=64)
    model = transformers.BertModel(config, add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    notes = pretrained.load(str(tmp_path)).notes
    assert len(notes) == 1
    assert "pooler.dense.weight" in notes[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no-such-organisation/no-such-model", "is not on this machine.*hf download no-such-organisation/"),
        ("./no-such-folder", "there is no folder './no-such-folder'"),
        ("/no/such/folder", "there is no folder '/no/such/folder'"),
    ],
)
def test_a_model_that_is_not_there_is_told_without_a_traceback(
    model: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--model", model]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nntap demo: error: --model")
    assert re.search(message, captured.err)
    assert "Traceback" not in captured.err


def test_a_folder_without_a_model_and_a_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match=r"has no config\.json"):
        demo.run(str(tmp_path))
    with pytest.raises(demo.DemoError, match="is a file"):
        demo.run(str(write(tmp_path / "model.txt", "x")))


def test_a_model_id_is_found_in_the_local_cache(gpt2_folder: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    entry = tmp_path / "hub" / "models--some-organisation--tiny"
    shutil.copytree(gpt2_folder, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "nntap", "demo", "--model", "some-organisation/tiny"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "Model: some-organisation/tiny\n" in result.stdout
    assert "Logit lens" in result.stdout


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "bert"])
def test_a_folder_without_a_tokeniser_is_told(kind: str, tmp_path: Path) -> None:
    bert = transformers.BertConfig(**SIZES, intermediate_size=64)
    model = transformers.BertModel(bert) if kind == "bert" else CAUSAL[kind]()
    model.save_pretrained(tmp_path)
    with pytest.raises(demo.DemoError, match=r"--model: .* has no tokeniser files"):
        demo.run(str(tmp_path))


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(demo.DemoError, match=r"cannot load the model '.*no file named model\.safetensors"):
        demo.run(str(tmp_path))
