"""The cases: each gives the rows that it measured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import torch

import nntap
from benchmarks.gpu import contestants
from benchmarks.gpu.models import Gives, llama, tokens
from benchmarks.gpu.row import Row, judged
from benchmarks.gpu.setting import GIB, Setting, reserve
from benchmarks.models import twin
from benchmarks.timer import Timed

Case = Callable[[Setting], Iterator[Row]]

NNSIGHTS = "nnsight's cache"


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
    """(i) Taking pinned memory for one GiB of records, with none there.

    A first record has attached the driver, which would otherwise pin the memory when it comes, off the clock.
    """
    first = Gives(lambda: torch.ones(1, device=setting.device))
    contestants.on_nntap(first, first)
    gc.collect()
    nntap.trim()
    nbytes = max(setting.sizes.tensor_bytes, 64 << 20)
    seconds = setting.timer.once(Timed(lambda: nntap.reserve(nbytes)))
    yield Row("i", f"cold start of {nbytes / GIB:.2f} GiB", seconds, nbytes, crossed=False)


def layers_in_prefill(setting: Setting) -> Iterator[Row]:
    """(c) Every layer of a large model in a prefill, which the link can follow."""
    forward, record = _prefill_of_layers(setting)
    nbytes = record().stats.bytes_moved
    reserve(2 * nbytes)
    seconds = setting.medians({"bare": forward, "nntap": record}, setting.sizes.rounds)
    tokens_in_all = prod(setting.sizes.prefill)
    yield Row("c", "bare forward", seconds["bare"], nbytes, crossed=False)
    row = Row("c", f"{setting.sizes.layers} layers, prefill of {tokens_in_all} tokens", seconds["nntap"], nbytes)
    yield _beside_the_link(setting, row, seconds["bare"])


def _prefill_of_layers(setting: Setting) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The bare run, and the recorded one."""
    model = llama(setting)
    forward = partial(contestants.run_prefill, model, tokens(setting, setting.sizes.prefill))
    return forward, partial(contestants.on_nntap, model, forward, modules="model.layers.*")


def _beside_the_link(setting: Setting, row: Row, bare: float) -> Row:
    ratio = row.seconds / max(bare, row.nbytes / setting.link)
    return judged(row, ratio, "time over max(bare, bytes over link), at most 1.03", ratio <= 1.03)


def peak_memory(setting: Setting) -> Iterator[Row]:
    """(h) The device memory that recording adds to that prefill. Read from torch's counters, which a CPU has not."""
    if setting.device.type != "cuda":
        return
    forward, record = _prefill_of_layers(setting)
    nbytes = record().stats.bytes_moved
    peaks = []
    for run in (forward, record):
        gc.collect()
        nntap.trim()
        reserve(nbytes)  # the model would otherwise wait for pinned memory, and need few chunks
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = setting.timer.once(Timed(run))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    added = peaks[1] - peaks[0]
    limit = nntap.pool_stats()["device_limit_bytes"]
    row = Row("h", "peak device memory that recording adds", seconds, added, crossed=False)
    yield judged(row, added / limit, "over the chunk budget, at most 1", added <= limit)


def decode(setting: Setting) -> Iterator[Row]:
    """(e) Generation, one token at a time."""
    model = llama(setting)
    prompt = tokens(setting, (1, 16))
    new = setting.sizes.new_tokens

    def generate() -> Any:
        with torch.no_grad():
            return model.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    record = partial(contestants.on_nntap, model, generate, modules="model.layers.*")
    nbytes = record().stats.bytes_moved
    seconds = setting.medians({"bare": generate, "nntap": record}, setting.sizes.few)
    yield Row("e", "bare generate", seconds["bare"], nbytes, crossed=False)
    ratio = seconds["nntap"] / seconds["bare"]
    row = Row("e", f"every layer of {new} decode steps", seconds["nntap"], nbytes)
    yield judged(row, ratio, "time over bare generate, at most 1.05", ratio <= 1.05)


def all_modules(setting: Setting) -> Iterator[Row]:
    """(d) Every module in a prefill, which the link cannot follow; and the same work by what people use now.

    What the link does not bound takes seconds a run. So each of these is measured apart, the most important first, and
    in few rounds.
    """
    model, inputs = llama(setting), tokens(setting, setting.sizes.prefill_of_all)
    forward = partial(contestants.run_prefill, model, inputs)
    record = partial(contestants.on_nntap, model, forward)
    cache = record()
    paths, nbytes = cache.keys(), cache.stats.bytes_moved
    del cache
    reserve(nbytes)
    ours = {"bare": forward, "nntap": record}
    seconds = setting.medians(ours, setting.sizes.rounds)
    yield Row("d", "bare forward", seconds["bare"], nbytes, crossed=False)
    row = Row("d", f"every module, prefill of {inputs.numel()} tokens, nntap", seconds["nntap"], nbytes)
    yield _beside_the_link(setting, row, seconds["bare"])
    for name, run in _others(model, forward, inputs, paths).items():
        seconds = setting.medians({**ours, name: run}, setting.sizes.few)
        yield _beside_nntap(name, nbytes, seconds)


def _others(model: Any, forward: Callable[[], Any], inputs: torch.Tensor, paths: list[str]) -> dict[str, Any]:
    from nnsight import NNsight

    wrapped = NNsight(twin(model))  # nnsight changes the modules it wraps
    return {
        NNSIGHTS: partial(contestants.on_nnsight_cache, wrapped, inputs),
        "pinned hooks": partial(contestants.on_pinned_hooks, model, forward),
        ".cpu() in hooks": partial(contestants.on_cpu_hooks, model, forward),
        ".save(), then .cpu()": partial(contestants.on_nnsight_save, wrapped, inputs, paths),
    }


def _beside_nntap(name: str, nbytes: int, seconds: dict[str, float]) -> Row:
    row = Row("d", f"the same by {name}", seconds[name], nbytes)
    added = (seconds["nntap"] - seconds["bare"]) / (seconds[name] - seconds["bare"])
    if name == NNSIGHTS:
        return judged(row, added, "what nntap adds over what this adds, at most 0.1", added <= 0.1)
    return judged(row, added, "what nntap adds over what this adds", None)


CASES: tuple[Case, ...] = (
    cold_start,
    one_tensor,
    cast,
    snapshot,
    many_tensors,
    layers_in_prefill,
    peak_memory,
    decode,
    all_modules,
)
"""In this order: cold start needs a pool that holds nothing, and what comes last is the first to find no time left."""
