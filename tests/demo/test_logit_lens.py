"""Causal models: what each layer would say next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from made_folders import CAUSAL, SIZES, VOCABULARY, causal_folder, save_tokenizer, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from nntap import cli, demo
from nntap.demo import pretrained
from nntap.demo.logit_lens import read_lens
from nntap.demo.record import record_forward


@pytest.mark.parametrize("kind", CAUSAL)
def test_the_logit_lens_is_the_one_computed_by_hand(kind: str, tmp_path: Path) -> None:
    folder = causal_folder(kind, tmp_path / "model")
    text = write(tmp_path / "text.txt", "the cat sat on\nparis is in the blue city of\tthe dog ran\n")
    result = demo.run(str(folder), text)
    lens = result.lens
    assert result.subject.causal
    assert result.similarity is None
    assert lens is not None
    assert lens.sentences == ("the cat sat on", "paris is in the blue city of", "the dog ran")
    assert lens.layers == ("embeddings", "0", "1", "2")
    assert all(lens.agrees)
    for column, sentence in enumerate(lens.sentences):
        expected = lens_by_hand(folder, sentence)
        assert [row[column].id for row in lens.tokens] == [token for token, _ in expected]
        probabilities = [row[column].probability for row in lens.tokens]
        assert probabilities == pytest.approx([p for _, p in expected], abs=1e-4)


def lens_by_hand(folder: Path, sentence: str) -> list[tuple[int, float]]:
    """(top token, probability) of every layer, from transformers' own `output_hidden_states`, unpadded."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    inputs = tokenizer(sentence, return_tensors="pt")
    base = model.get_decoder()
    norm = getattr(base, {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(base.config.model_type, "norm"), None)
    norm = base.final_layer_norm if norm is None else norm
    project = getattr(base, "project_out", None) or torch.nn.Identity()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True, use_cache=False)
        logits = [model.get_output_embeddings()(project(norm(h[0, -1]))) for h in output.hidden_states[:-1]]
        logits.append(output.logits[0, -1])  # of the last block, which transformers gives only after the norm
    return [(int(row.argmax()), row.softmax(dim=-1).max().item()) for row in logits]


def test_the_command_prints_the_lens_of_the_bundled_prompts(
    gpt2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--model", str(gpt2_folder)]) == 0
    out = capsys.readouterr().out
    assert "Logit lens" in out
    assert "… Tower is in the city of" in out
    assert "what the model itself puts first" in out


def test_a_lens_that_misses_a_step_of_the_model_says_so(gpt2_folder: Path, tmp_path: Path) -> None:
    subject = pretrained.load(str(gpt2_folder))

    class Negated(torch.nn.Linear):
        """A head that the demo's reading of the recorded hidden states cannot agree with."""

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            logits = super().forward(value)
            return -logits if value.ndim == 3 else logits

    head = Negated(32, VOCABULARY, bias=False)
    head.weight = subject.model.get_output_embeddings().weight
    subject.model.set_output_embeddings(head)
    batch = subject.encode(["the cat sat on"])
    recording = record_forward(subject, batch)
    assert subject.decode is not None
    lens = read_lens(subject.model, recording, batch.mask, ["the cat sat on"], subject.decode)
    assert lens.agrees == (False,)


def test_a_causal_model_without_a_known_final_norm_is_refused(tmp_path: Path) -> None:
    config = transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, do_layer_norm_before=False)
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(demo.DemoError, match=r"no final norm found in 'model\.decoder'.*ln_f.*there are: embed"):
        demo.run(str(tmp_path))
