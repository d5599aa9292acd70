"""The whole demo on what it takes by itself: real weights, real sentences."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from made_folders import write
from torch.nn import functional as F
from transformers import AutoTokenizer

from helpers import run_script
from nntap import demo
from nntap.demo import extras, fallback, similarity, texts, timing
from nntap.demo.progress import Progress
from nntap.demo.record import Layer


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


def test_one_sentence_alone_is_recorded_and_not_compared(tmp_path: Path) -> None:
    out = io.StringIO()
    result = demo.main(None, write(tmp_path / "text.txt", "Just one sentence.\n"), None, out)
    assert result.similarity is None
    assert len(result.recording.layers) == 7
    assert "nothing to be compared with" in out.getvalue()


def test_a_limit_that_is_too_small_is_told() -> None:
    # In a process of its own: in this one the records of other tests leave slabs with room.
    done = run_script("""
        import sys
        import nntap, nntap.cli
        nntap.set_limits(host_bytes=nntap.pool_stats()["slab_bytes"], wait_seconds=0.1)
        sys.exit(nntap.cli.main(["demo"]))
    """)
    assert done.returncode == 2
    assert done.stderr.startswith("nntap demo: error: There is not enough host memory:")
    assert done.stdout == ""


def test_similarity_of_equal_and_opposite_sentences() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [9.0, 9.0]], [[2.0, 0.0], [4.0, 0.0]], [[-1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[1, 0], [1, 1], [1, 1]])
    layer = Layer("0", hidden)
    pairs = [texts.Pair("g", "a", "b"), texts.Pair("g", "a", "c")]
    result = similarity.compare([layer], mask, ["a", "b", "c"], pairs)
    assert result.values[0] == pytest.approx((1.0, -1.0))
