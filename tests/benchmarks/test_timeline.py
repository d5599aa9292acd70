"""A timeline has every byte that was copied, its pictures come from its file alone, and what cannot be is noticed."""

from __future__ import annotations

import dataclasses
import json
import time
from itertools import pairwise
from threading import get_ident
from typing import Any

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.models import Unsuited, tiny_gpt2

import nntap
from benchmarks import cases, pictures, results, timeline
from nntap import _core
from nntap.testing import simulated

CASE = cases.find("in-place")
KINDS_ON_CPU = [("run", "host"), ("compute", "host"), ("snapshot", "host")]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return timeline.measure(CASE)


def span(name: str, begin: int, end: int, kind: str = "compute", nbytes: int = 0, thread: str = "host") -> Any:
    return dataclasses.asdict(timeline.Span(kind, name, begin, end, nbytes, thread))


def bytes_of(measured: dict[str, Any], *names: str) -> int:
    return sum(span.bytes for span in timeline.spans_of(measured) if span.name in names)


# ---- the engine's log ----


def record(count: int) -> None:
    model = torch.nn.ModuleList(torch.nn.ReLU() for _ in range(count))
    with nntap.capture(model):
        for number, module in enumerate(model, start=1):  # other values each: equal ones at one address are copied once
            module(torch.full((4,), float(number)))


def test_nothing_is_logged_unless_somebody_looks():
    record(3)
    assert _core.stop_event_log() == []


def test_an_event_has_its_bytes_its_thread_and_pythons_times():
    _core.start_event_log(10)
    before = time.perf_counter_ns()
    record(2)
    after = time.perf_counter_ns()
    events = _core.stop_event_log()
    assert [(what, nbytes, thread) for what, _, _, nbytes, thread in events] == [("copy", 16, get_ident())] * 2
    assert before <= events[0][1] <= events[0][2] <= events[1][1] <= events[1][2] <= after


def test_the_log_ends_at_its_limit_and_starts_empty():
    _core.start_event_log(2)
    record(3)
    assert len(_core.stop_event_log()) == 2
    _core.start_event_log(2)
    assert _core.stop_event_log() == []


# ---- what is measured ----


def test_every_byte_is_in_exactly_one_copy(measured):
    assert bytes_of(measured, "copy") == measured["stats"]["bytes_moved"] > 0
    assert list(timeline.complaints(measured)) == []


def test_phases_follow_each_other_and_layers_lie_in_the_forward(measured):
    lanes = timeline.lanes(measured)
    assert list(lanes) == KINDS_ON_CPU
    phases = lanes["run", "host"]
    assert [phase.name for phase in phases] == list(timeline.PHASES)
    assert [phase.end_ns for phase in phases[:-1]] == [phase.begin_ns for phase in phases[1:]]
    assert (phases[0].begin_ns, phases[-1].end_ns) == (0, measured["length_ns"])
    layers = lanes["compute", "host"]
    assert [layer.name for layer in layers] == ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert [layer.bytes for layer in layers] == [16 * 8 * 4] * 4
    assert phases[1].begin_ns <= layers[0].begin_ns
    assert layers[-1].end_ns <= phases[1].end_ns
    assert all(one.end_ns <= other.begin_ns for one, other in pairwise(layers))


def test_the_snapshot_of_a_layer_follows_the_layer():
    lanes = timeline.lanes(timeline.measure(dataclasses.replace(CASE, request=cases.layers)))
    both = sorted([*lanes["compute", "host"], *lanes["snapshot", "host"]], key=lambda span: span.begin_ns)
    assert [span.kind for span in both] == ["compute", "snapshot"] * 4
    assert all(one.end_ns <= other.begin_ns for one, other in pairwise(both))


def test_a_model_is_cut_into_its_layers_and_what_lies_beside_them():
    subject = tiny_gpt2()
    layers = [f"transformer.h.{index}" for index in range(12)]
    beside = ["transformer.wte", "transformer.wpe", "transformer.drop"]
    parts = timeline.parts_of(subject.model, subject.layers)
    assert list(parts) == [*beside, *layers, "transformer.ln_f", "lm_head"]
    assert all(subject.model.get_submodule(path) is part for path, part in parts.items())


def test_no_hook_is_left_on_the_model():
    subject = CASE.subject("cpu")
    timeline.measure(dataclasses.replace(CASE, subject=lambda device: subject), warm_ups=0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())


@pytest.mark.parametrize("pinned", [True, False])
def test_on_a_simulated_gpu_copies_and_waits_have_lanes(pinned):
    with simulated(pinned=pinned):
        measured = timeline.measure(CASE)
    lanes = timeline.lanes(measured)
    assert {"snapshot", "copies", "waits"} <= {kind for kind, _ in lanes}
    assert ("copies", "thread 1") in lanes or pinned
    assert bytes_of(measured, "launch gathers") == measured["stats"]["bytes_moved"]
    assert bytes_of(measured, "enqueue copy") == measured["stats"]["bytes_moved"]
    assert bytes_of(measured, "copy out of staging") == (0 if pinned else measured["stats"]["bytes_moved"])
    assert list(timeline.complaints(measured)) == []


class HostEvent:
    """A GPU's event whose device is the host."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: HostEvent) -> float:
        return (end.seconds - self.seconds) * 1e3


def test_on_a_gpu_the_device_has_a_lane_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.Event", HostEvent)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    subject = dataclasses.replace(CASE.subject("cpu"), device="cuda")
    measured = timeline._measured_run(subject, CASE.request(subject))
    lanes = timeline.lanes(measured)
    assert [(part.name, part.bytes) for part in lanes["compute on the GPU", "GPU"]] == [
        (part.name, part.bytes) for part in lanes["compute", "host"]
    ]
    assert list(timeline.complaints(measured | {"target": "cpu"})) == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_real_gpu_nothing_is_wrong():
    measured = timeline.measure(CASE, "cuda")
    assert ("compute on the GPU", "GPU") in timeline.lanes(measured)
    assert list(timeline.complaints(measured)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_timeline_of_one():
    with pytest.raises(Unsuited, match="finds no GPU"):
        timeline.measure(CASE, "cuda")


# ---- what cannot be ----


def test_a_lost_copy_is_noticed(measured):
    spans = list(measured["spans"])
    spans.remove(next(span for span in spans if span["name"] == "copy"))
    assert list(timeline.complaints(measured | {"spans": spans})) == [
        "the copies carry 5632 bytes, but 6144 were recorded"
    ]


def test_a_copy_that_is_there_twice_is_noticed(measured):
    copy = next(span for span in measured["spans"] if span["name"] == "copy")
    twice = measured | {"spans": [*measured["spans"], copy]}
    assert list(timeline.complaints(twice)) == ["the copies carry 6656 bytes, but 6144 were recorded"]


def test_padding_in_a_chunk_is_no_lost_byte_but_more_of_it_is(measured):
    made = measured | {"stats": {"records": 2, "bytes_moved": 100}}
    fits = made | {"spans": [span("enqueue copy", 0, 1, "copies", 228)]}
    assert list(timeline.complaints(fits)) == []
    too_much = made | {"spans": [span("enqueue copy", 0, 1, "copies", 229)]}
    assert list(timeline.complaints(too_much)) == ["the copies carry 229 bytes, but 100 were recorded"]


@pytest.mark.parametrize("times", [(-1, 5), (5, 4), (0, 10**15)])
def test_a_span_that_is_not_in_the_run_is_noticed(measured, times):
    broken = measured | {"spans": [*measured["spans"], span("late", *times, thread="thread 1")]}
    wanted = "late (compute, thread 1) ends before it begins, or lies outside of the run"
    assert list(timeline.complaints(broken)) == [wanted]


def test_spans_of_a_thread_that_cross_are_noticed(measured):
    made = measured | {"target": None, "length_ns": 100}
    one, in_it, after, crossing = (span(*what) for what in (("a", 0, 10), ("b", 2, 9), ("c", 10, 20), ("d", 15, 25)))
    assert list(timeline.complaints(made | {"spans": [after, in_it, one]})) == []
    elsewhere = dict(crossing, thread="thread 1")
    assert list(timeline.complaints(made | {"spans": [one, in_it, after, elsewhere]})) == []
    wanted = "d begins within c and ends after it, on one thread (host)"
    assert list(timeline.complaints(made | {"spans": [one, in_it, after, crossing]})) == [wanted]


def test_a_full_log_is_noticed(monkeypatch):
    monkeypatch.setattr(timeline, "MOST_EVENTS", 5)
    complaints = list(timeline.complaints(timeline.measure(CASE)))
    assert complaints[0] == "the engine logged more than 5 events, and the rest is missing"
    assert "the copies carry" in complaints[1]


def test_an_event_of_an_unknown_kind_has_a_lane(monkeypatch):
    monkeypatch.delitem(timeline.KIND_OF_EVENT, "copy")
    assert list(timeline.lanes(timeline.measure(CASE)))[-1] == ("other", "host")


# ---- drawing ----


def test_a_trace_is_what_perfetto_reads(measured, tmp_path):
    timeline.write_trace(measured, tmp_path / "made" / "trace.json")
    trace = json.loads((tmp_path / "made" / "trace.json").read_text())
    named = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(named) + len(spans) == len(trace["traceEvents"])
    lanes = {event["tid"]: event["args"]["name"] for event in named if event["name"] == "thread_name"}
    assert lanes == {1: "run (host)", 2: "compute (host)", 3: "snapshot (host)"}
    assert {event["tid"] for event in spans} == set(lanes)
    assert {event["pid"] for event in trace["traceEvents"]} == {1}
    assert len(spans) == len(measured["spans"])
    assert sum(event["args"]["bytes"] for event in spans if event["name"] == "copy") == 6144


def test_a_trace_has_microseconds():
    made = {"model": "m", "title": "t", "machine": {}, "spans": [span("a", 1500, 4000, "copies", 2048)]}
    assert timeline.as_trace(made)["traceEvents"][-1] == {
        "ph": "X",
        "name": "a",
        "cat": "copies",
        "ts": 1.5,
        "dur": 2.5,
        "pid": 1,
        "tid": 1,
        "args": {"bytes": 2048, "size": "2.00 KiB"},
    }


def test_in_a_lane_of_the_trace_what_lies_around_others_comes_first():
    spans = [span("in", 0, 1), span("around", 0, 5), span("before", -2, 0)]
    assert [span.name for span in timeline.lanes({"spans": spans})["compute", "host"]] == ["before", "around", "in"]


def test_every_kind_has_a_colour():
    assert set(pictures.OF_KIND) == set(timeline.KINDS)
    assert set(timeline.KIND_OF_EVENT.values()) <= set(timeline.KINDS)


def test_a_picture_names_lanes_and_shows_bytes_with_times(measured):
    spans = [span("layers.0", 0, 500_000, nbytes=2048), span("copy", 200_000, 200_001, "snapshot", 1024)]
    figure = pictures.by_time(measured | {"length_ns": 1_000_000, "spans": spans})
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["compute (host)\n1: 0.500 ms, 2.00 KiB", "snapshot (host)\n1: 0.000 ms, 1.00 KiB"]
    assert [text.get_text() for text in axes.texts] == ["layers.0\n0.500 ms\n2.00 KiB"]  # the copy is too narrow


# ---- the command ----


def test_the_command_measures_draws_and_writes_a_trace(tmp_path, capsys):
    out, plot, trace = tmp_path / "out.json", tmp_path / "drawn" / "out.png", tmp_path / "trace.json"
    command = ["timeline", "--case", "in-place", "--out", str(out), "--plot", str(plot), "--trace", str(trace)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"written: {out}\nwritten: {plot}\nwritten: {trace}\n"
    saved = results.load(out)
    assert (saved["schema"], saved["case"], saved["machine"]["device"]) == (1, "in-place", "cpu")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(trace.read_text()) == timeline.as_trace(saved)


def test_pictures_come_from_the_file_alone(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "measure", None)
    results.save(measured, tmp_path / "out.json")
    plot = tmp_path / "out.png"
    assert main(["timeline", "--from", str(tmp_path / "out.json"), "--plot", str(plot)]) == 0
    assert plot.exists()


def test_the_command_fails_on_what_cannot_be(measured, tmp_path, capsys):
    results.save(measured | {"length_ns": 1, "spans": []}, tmp_path / "out.json")
    assert main(["timeline", "--from", str(tmp_path / "out.json")]) == 1
    assert capsys.readouterr().err == "WRONG  the copies carry 0 bytes, but 6144 were recorded\n"


def test_an_unknown_case_is_named_with_those_there_are():
    with pytest.raises(SystemExit, match=r"--case tiny is not a case\. These are: tiny-all, "):
        main(["timeline", "--case", "tiny"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_command_says_where_it_does_not_apply(capsys):
    assert main(["timeline", "--device", "cuda", "--case", "in-place"]) == 0
    assert capsys.readouterr().out == "skipped: torch finds no GPU here\n"
