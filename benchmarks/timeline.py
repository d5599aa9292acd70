"""One recorded run on a time axis: what the model computed, and what the engine did meanwhile."""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import get_ident
from time import perf_counter_ns
from typing import Any, TypeVar

import torch
from torch import nn

import nntap
from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.contestants import Request
from benchmarks.contestants.plain import in_cache
from benchmarks.models import Subject, Unsuited
from benchmarks.show import size
from nntap import _core
from nntap.nest import tensors_in

DEFAULT_CASE = "gpt2-all-float16"
WARM_UPS = 2
MOST_EVENTS = 1 << 18
PADDING = 64
"""Bytes that records are padded to in a chunk, whose copy carries the padding too."""

KINDS = ("run", "compute", "compute on the GPU", "snapshot", "copies", "waits", "other")
"""From the top of a picture to its bottom."""

KIND_OF_EVENT = {
    "copy": "snapshot",
    "launch gathers": "snapshot",
    "enqueue copy": "copies",
    "copy out of staging": "copies",
    "wait for landing": "waits",
    "stall": "waits",
    "pin memory": "waits",
}
"""The engine's events; one that is not here is drawn as "other"."""

PHASES = ("enter capture", "forward", "leave capture", "read records")

Event = tuple[str, int, int, int, int]
"""As the engine logs it: what, begin and end as ``time.perf_counter_ns()``, bytes, and the thread's ident."""

Instant = TypeVar("Instant")


@dataclass(frozen=True)
class Span:
    """Something that went on from `begin_ns` to `end_ns`, in nanoseconds since the run began.

    `bytes` are those it handled: what a module gave back, what was copied; 0 where there are none to name.
    """

    kind: str
    name: str
    begin_ns: int
    end_ns: int
    bytes: int
    thread: str


# ---- measuring ----


def measure(case: Case, device: str = "cpu", threads: int | None = None, warm_ups: int = WARM_UPS) -> dict[str, Any]:
    """The timeline of one run of a case under `nntap.capture`, ready for JSON.

    `threads` are those of torch. With no `warm_ups`, it shows what a first run pays.

    Raises:
        Unsuited: where the device, or what the case needs, is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise Unsuited("torch finds no GPU here")
    if threads is not None:
        torch.set_num_threads(threads)
    subject = case.subject(device)
    request = case.request(subject)
    with torch.no_grad():
        for _ in range(warm_ups):
            _run(subject, request)
            gc.collect()
        measured = _measured_run(subject, request)
    return {
        "schema": 1,
        "machine": machine.facts(device),
        "settings": {"clock": "wall", "warm_ups": warm_ups},
        "case": case.key,
        "title": case.title,
        "model": subject.name,
        "target": request.device,
        **measured,
    }


def _measured_run(subject: Subject, request: Request) -> dict[str, Any]:
    parts = parts_of(subject.model, subject.layers)
    with ExitStack() as stack:
        on_device = stack.enter_context(_on_device(parts)) if subject.device == "cuda" else []
        on_host = stack.enter_context(_watched(parts, perf_counter_ns))
        logged = stack.enter_context(_event_log())
        times, stats = _run(subject, request)
    host = get_ident()
    begin, end = times[0], times[-1]
    phases = [(name, *ends, 0, host) for name, ends in zip(PHASES, pairwise(times), strict=True)]
    modules = [(*part, host) for part in on_host]
    spans = [
        *_spans(phases, begin, lambda name: "run"),
        *_spans(modules, begin, lambda name: "compute"),
        *(Span("compute on the GPU", path, at - begin, to - begin, size, "GPU") for path, at, to, size in on_device),
        *_spans(logged, begin, lambda name: KIND_OF_EVENT.get(name, "other")),
    ]
    return {
        "length_ns": end - begin,
        "log_was_full": len(logged) >= MOST_EVENTS,
        "stats": asdict(stats),
        "spans": [asdict(span) for span in spans],
    }


def _run(subject: Subject, request: Request) -> tuple[list[int], nntap.Stats]:
    """One run with every record read, and the times between which the `PHASES` lie."""
    modules = None if request.modules is None else list(request.modules)
    capture = nntap.capture(
        subject.model, modules, device=request.device, dtype=request.dtype, include_inputs=request.inputs
    )
    wait = machine.synchroniser(subject.device)
    wait()
    times = [perf_counter_ns()]
    with capture as cache:
        times.append(perf_counter_ns())
        subject.forward(subject.model)
        times.append(perf_counter_ns())
    times.append(perf_counter_ns())
    deque(in_cache(request, cache), maxlen=0)  # a reader waits for what has not landed yet
    wait()
    times.append(perf_counter_ns())
    return times, cache.stats


def parts_of(model: nn.Module, layers: Sequence[str], path: str = "") -> dict[str, nn.Module]:
    """A model in pieces, by path: its layers, and beside them the outermost modules that hold none."""
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        inner = f"{path}.{name}" if path else name
        if any(layer.startswith(f"{inner}.") for layer in layers):
            parts |= parts_of(child, layers, inner)
        else:
            parts[inner] = child
    return parts


@contextmanager
def _watched(
    modules: Mapping[str, nn.Module], note: Callable[[], Instant]
) -> Iterator[list[tuple[str, Instant, Instant, int]]]:
    """Lists each call: the path, what `note` gave at its begin and end, and the bytes of what it gave back."""
    calls: list[tuple[str, Instant, Instant, int]] = []
    begun: list[Instant] = []
    handles = []
    for path, module in modules.items():

        def begin(module: Any, args: Any) -> None:
            begun.append(note())

        def end(module: Any, args: Any, output: Any, path: str = path) -> None:
            now = note()
            calls.append((path, begun.pop(), now, sum(tensor.nbytes for tensor in tensors_in(output))))

        handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _on_device(modules: Mapping[str, nn.Module]) -> Iterator[list[tuple[str, int, int, int]]]:
    """Like `_watched`, but when the GPU's current stream was there, by the host's clock; filled at the block's end."""
    found: list[tuple[str, int, int, int]] = []
    torch.cuda.synchronize()
    first, began = _mark(), perf_counter_ns()  # the GPU is idle: it passes the mark at once
    with _watched(modules, _mark) as calls:
        yield found
    torch.cuda.synchronize()
    for path, begin, end, nbytes in calls:
        times = [began + int(first.elapsed_time(mark) * 1e6) for mark in (begin, end)]
        found.append((path, times[0], times[1], nbytes))


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@contextmanager
def _event_log() -> Iterator[list[Event]]:
    """What the engine logged in the block; filled at its end."""
    found: list[Event] = []
    _core.start_event_log(MOST_EVENTS)
    try:
        yield found
    finally:
        found += _core.stop_event_log()


def _spans(events: Sequence[Event], begin: int, kind_of: Callable[[str], str]) -> Iterator[Span]:
    others: dict[int, str] = {get_ident(): "host"}
    for name, start, end, nbytes, thread in events:
        label = others.setdefault(thread, f"thread {len(others)}")
        yield Span(kind_of(name), name, start - begin, end - begin, nbytes, label)


# ---- judging ----


def complaints(timeline: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be: a span outside of the run, spans of a thread that cross, or bytes that no copy accounts for."""
    if timeline["log_was_full"]:
        yield f"the engine logged more than {MOST_EVENTS} events, and the rest is missing"
    threads: dict[str, list[Span]] = {}
    for span in spans_of(timeline):
        if not 0 <= span.begin_ns <= span.end_ns <= timeline["length_ns"]:
            yield f"{span.name} ({span.kind}, {span.thread}) ends before it begins, or lies outside of the run"
        threads.setdefault(span.thread, []).append(span)
    for spans in threads.values():
        yield from _crossings(spans)
    if timeline["target"] == "cpu":
        yield from _lost_bytes(timeline)


def _crossings(spans: Sequence[Span]) -> Iterator[str]:
    """A thread does one thing at a time: of two spans, one lies in the other or after it."""
    around: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.begin_ns, -span.end_ns)):
        while around and around[-1].end_ns <= span.begin_ns:
            around.pop()
        if around and around[-1].end_ns < span.end_ns:
            yield f"{span.name} begins within {around[-1].name} and ends after it, on one thread ({span.thread})"
        around.append(span)


def _lost_bytes(timeline: Mapping[str, Any]) -> Iterator[str]:
    moved = timeline["stats"]["bytes_moved"]
    spans = spans_of(timeline)
    enqueued = [span.bytes for span in spans if span.name == "enqueue copy"]
    copied = sum(enqueued) + sum(span.bytes for span in spans if span.name == "copy")
    padding = PADDING * timeline["stats"]["records"] if enqueued else 0
    if not moved <= copied <= moved + padding:
        yield f"the copies carry {copied} bytes, but {moved} were recorded"


# ---- drawing ----


def spans_of(timeline: Mapping[str, Any]) -> list[Span]:
    return [Span(**span) for span in timeline["spans"]]


def lanes(timeline: Mapping[str, Any]) -> dict[tuple[str, str], list[Span]]:
    """Spans by kind and thread, in the order of `KINDS`; in a lane by begin, what lies around others first."""
    found: dict[tuple[str, str], list[Span]] = {}
    for span in sorted(spans_of(timeline), key=lambda span: (span.begin_ns, -span.end_ns)):
        found.setdefault((span.kind, span.thread), []).append(span)
    return dict(sorted(found.items(), key=lambda lane: KINDS.index(lane[0][0])))


def write_trace(timeline: Mapping[str, Any], path: Path) -> None:
    """A file in the trace event format, which https://ui.perfetto.dev opens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_trace(timeline)) + "\n")


def as_trace(timeline: Mapping[str, Any]) -> dict[str, Any]:
    """Trace events: a lane is a thread of theirs; times are in microseconds."""
    events = [_metadata("process_name", 0, name=f"{timeline['model']}: {timeline['title']}")]
    for lane, ((kind, thread), spans) in enumerate(lanes(timeline).items(), 1):
        events.append(_metadata("thread_name", lane, name=f"{kind} ({thread})"))
        events.append(_metadata("thread_sort_index", lane, sort_index=lane))
        events += [_as_event(span, lane) for span in spans]
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": timeline["machine"]}


def _metadata(what: str, lane: int, **values: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": 1, "tid": lane, "args": values}


def _as_event(span: Span, lane: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.kind,
        "ts": span.begin_ns / 1e3,
        "dur": (span.end_ns - span.begin_ns) / 1e3,
        "pid": 1,
        "tid": lane,
        "args": {"bytes": span.bytes, "size": size(span.bytes)},
    }
