"""The cases: each gives the rows that it measured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import nntap
from benchmarks.gpu import contestants
from benchmarks.gpu.models import Gives, llama, tokens
from benchmarks.gpu.row import Row, judged
from benchmarks.gpu.setting import GIB, Setting

Case = Callable[[Setting], Iterator[Row]]


def one_tensor(setting: Setting) -> Iterator[Row]:
    """(a) One large tensor, as fast as the link."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    seconds = setting.median(lambda: contestants.on_nntap(model, model))
    row = Row("a", "one tensor", seconds, setting.sizes.tensor_bytes)
    of_link = row.nbytes / seconds / setting.link
    yield judged(row, of_link, "rate over the link's, at least 0.95", of_link >= 0.95)


def many_tensors(setting: Setting) -> Iterator[Row]:
    """(b) The same bytes in tensors of several sizes."""
    sizes = setting.sizes
    for each in sizes.piece_bytes:
        count = min(sizes.most_pieces, max(1, sizes.tensor_bytes // each))
        rows = torch.ones(count, each // 4, device=setting.device).unbind()
        model = Gives(lambda: None)

        def forward(rows: tuple[torch.Tensor, ...] = rows, model: Gives = model) -> None:
            for tensor in rows:
                model.make = lambda tensor=tensor: tensor
                model()

        def run(model: Gives = model, forward: Callable[[], None] = forward) -> Any:
            return contestants.on_nntap(model, forward)

        yield Row("b", f"{count} tensors of {each >> 10} KiB", setting.median(run), count * each)


def cast(setting: Setting) -> Iterator[Row]:
    """(f) float32 recorded as float16: half the bytes cross."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    seconds = setting.median(lambda: contestants.on_nntap(model, model, dtype=torch.float16))
    yield Row("f", "one float32 tensor as float16", seconds, setting.sizes.tensor_bytes // 2)


def snapshot(setting: Setting) -> Iterator[Row]:
    """(g) A snapshot that stays on the device: bytes are read and written there, and none crosses the link."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    seconds = setting.median(lambda: contestants.on_nntap(model, model, device=None))
    yield Row("g", "snapshot on the device, read and written", seconds, 2 * setting.sizes.tensor_bytes, crossed=False)
    clone = setting.median(lambda: tensor.clone())
    yield Row("g", "torch's clone(), for comparison", clone, 2 * setting.sizes.tensor_bytes, crossed=False)


def cold_start(setting: Setting) -> Iterator[Row]:
    """(i) Taking pinned memory for one GiB of records, with none there."""
    gc.collect()
    nntap.trim()
    nbytes = max(setting.sizes.tensor_bytes, 64 << 20)
    seconds = setting.timer.once(_timed(lambda: nntap.reserve(nbytes)))
    yield Row("i", f"cold start of {nbytes / GIB:.2f} GiB", seconds, nbytes, crossed=False)


def _timed(run: Callable[[], Any]) -> Any:
    from benchmarks.timer import Timed

    return Timed(run)


def layers_in_prefill(setting: Setting) -> Iterator[Row]:
    """(c) and (h): every layer of a large model in a prefill, which the link can follow; and the memory it takes."""
    model = llama(setting)
    inputs = tokens(setting, setting.sizes.prefill)
    forward = partial(_forward, model, inputs)
    record = partial(contestants.on_nntap, model, forward, modules="model.layers.*")
    nbytes = record().stats.bytes_moved
    nntap.reserve(2 * nbytes)
    seconds = setting.medians({"bare": forward, "nntap": record})
    yield Row("c", "bare forward", seconds["bare"], nbytes, crossed=False)
    floor = max(seconds["bare"], nbytes / setting.link)
    ratio = seconds["nntap"] / floor
    row = Row("c", f"{setting.sizes.layers} layers, prefill of {inputs.numel()} tokens", seconds["nntap"], nbytes)
    yield judged(row, ratio, "time over max(bare, bytes over link), at most 1.03", ratio <= 1.03)
    yield from _peak_memory(setting, forward, record)
    yield from _decode(setting, model)


def _forward(model: Any, inputs: torch.Tensor) -> Any:
    with torch.no_grad():
        return model(inputs, use_cache=False, logits_to_keep=1)


def _peak_memory(setting: Setting, forward: Callable[[], Any], record: Callable[[], Any]) -> Iterator[Row]:
    if setting.device.type != "cuda":
        return
    peaks = []
    for run in (forward, record):
        gc.collect()
        nntap.trim()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = setting.timer.once(_timed(run))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    added = peaks[1] - peaks[0]
    limit = nntap.pool_stats()["device_limit_bytes"]
    row = Row("h", "peak device memory that recording adds", seconds, added, crossed=False)
    yield judged(row, added / limit, "over the chunk budget, at most 1", added <= limit)


def _decode(setting: Setting, model: Any) -> Iterator[Row]:
    """(e) Generation, one token at a time."""
    prompt = tokens(setting, (1, 16))
    new = setting.sizes.new_tokens

    def generate() -> Any:
        with torch.no_grad():
            return model.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    record = partial(contestants.on_nntap, model, generate, modules="model.layers.*")
    nbytes = record().stats.bytes_moved
    seconds = setting.medians({"bare": generate, "nntap": record})
    yield Row("e", "bare generate", seconds["bare"], nbytes, crossed=False)
    ratio = seconds["nntap"] / seconds["bare"]
    row = Row("e", f"every layer of {new} decode steps", seconds["nntap"], nbytes)
    yield judged(row, ratio, "time over bare generate, at most 1.05", ratio <= 1.05)


def all_modules(setting: Setting) -> Iterator[Row]:
    """(d) Every module in a prefill, which the link cannot follow; and the same work by what people use now."""
    from nnsight import NNsight

    model = llama(setting)
    inputs = tokens(setting, setting.sizes.prefill_of_all)
    forward = partial(_forward, model, inputs)
    cache = contestants.on_nntap(model, forward)
    paths, nbytes = cache.keys(), cache.stats.bytes_moved
    del cache
    nntap.reserve(nbytes)
    wrapped = NNsight(model)
    runs: dict[str, Callable[[], Any]] = {
        "bare": forward,
        "nntap": partial(contestants.on_nntap, model, forward),
        "nnsight's cache": partial(contestants.on_nnsight_cache, wrapped, inputs),
        ".save(), then .cpu()": partial(contestants.on_nnsight_save, wrapped, inputs, paths),
        ".cpu() in hooks": partial(contestants.on_cpu_hooks, model, forward),
        "pinned hooks": partial(contestants.on_pinned_hooks, model, forward),
    }
    with torch.no_grad():
        seconds = setting.medians(runs)
    yield Row("d", "bare forward", seconds["bare"], nbytes, crossed=False)
    floor = max(seconds["bare"], nbytes / setting.link)
    ratio = seconds["nntap"] / floor
    row = Row("d", f"every module, prefill of {inputs.numel()} tokens, nntap", seconds["nntap"], nbytes)
    yield judged(row, ratio, "time over max(bare, bytes over link), at most 1.03", ratio <= 1.03)
    added = (seconds["nntap"] - seconds["bare"]) / (seconds["nnsight's cache"] - seconds["bare"])
    yield judged(row, added, "added time over nnsight's, at most 0.1", added <= 0.1)
    for name in list(runs)[2:]:
        yield Row("d", f"the same by {name}", seconds[name], nbytes)


CASES: tuple[Case, ...] = (cold_start, one_tensor, many_tensors, cast, snapshot, layers_in_prefill, all_modules)
