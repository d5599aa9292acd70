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
from benchmarks.gpu.setting import GIB, Counted, Setting, reserve
from benchmarks.models import twin
from benchmarks.timer import Spread, Timed, ratio_of_added

Case = Callable[[Setting], Iterator[Row]]

NNSIGHTS = "nnsight's cache"


def one_tensor(setting: Setting) -> Iterator[Row]:
    """(a) One large tensor, as fast as the link."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    nbytes = setting.sizes.tensor_bytes
    row = Row("a", "one tensor", setting.samples(lambda: contestants.on_nntap(model, model)), nbytes)
    of_link = Spread.of([nbytes / seconds / setting.link for seconds in row.samples])
    yield judged(row, of_link, "rate over the link's, at least 0.95", of_link.median >= 0.95)


def many_tensors(setting: Setting) -> Iterator[Row]:
    """(b) The same bytes in tensors of several sizes; of the smallest as many as a run of about a second records."""
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

        yield Row("b", f"{count} tensors of {each >> 10} KiB", setting.samples(run), count * each)


def cast(setting: Setting) -> Iterator[Row]:
    """(f) float32 recorded as float16: half the bytes cross."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    samples = setting.samples(lambda: contestants.on_nntap(model, model, dtype=torch.float16))
    yield Row("f", "one float32 tensor as float16", samples, setting.sizes.tensor_bytes // 2)


def snapshot(setting: Setting) -> Iterator[Row]:
    """(g) A snapshot that stays on the device: bytes are read and written there, and none crosses the link."""
    tensor = torch.ones(setting.sizes.tensor_bytes // 4, device=setting.device)
    model = Gives(lambda: tensor)
    nbytes = 2 * setting.sizes.tensor_bytes
    runs = {
        "snapshot on the device, read and written": lambda: contestants.on_nntap(model, model, device=None),
        "torch's clone(), for comparison": tensor.clone,
    }
    for what, samples in setting.in_turn(runs, setting.sizes.rounds).items():
        yield Row("g", what, samples, nbytes, crossed=False)


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
    yield Row("i", f"cold start of {nbytes / GIB:.2f} GiB", [seconds], nbytes, crossed=False)


def layers_in_prefill(setting: Setting) -> Iterator[Row]:
    """(c) Every layer of a large model in a prefill, which the link can follow."""
    forward, record = _prefill_of_layers(setting)
    nbytes = record().stats.bytes_moved
    reserve(2 * nbytes)
    samples = setting.in_turn({"bare": forward, "nntap": record}, setting.sizes.rounds)
    tokens_in_all = prod(setting.sizes.prefill)
    yield Row("c", "bare forward", samples["bare"], None)
    what = f"{setting.sizes.layers} layers, prefill of {tokens_in_all} tokens"
    yield _beside_the_link(setting, "c", what, nbytes, samples)


def _prefill_of_layers(setting: Setting) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The bare run, and the recorded one."""
    model = llama(setting)
    forward = partial(contestants.run_prefill, model, tokens(setting, setting.sizes.prefill))
    return forward, partial(contestants.on_nntap, model, forward, modules="model.layers.*")


def _beside_the_link(setting: Setting, case: str, what: str, nbytes: int, samples: dict[str, list[float]]) -> Row:
    pairs = zip(samples["nntap"], samples["bare"], strict=True)
    ratio = Spread.of([mine / max(bare, nbytes / setting.link) for mine, bare in pairs])
    target = "time over max(bare, bytes over link), at most 1.03"
    return judged(Row(case, what, samples["nntap"], nbytes), ratio, target, ratio.median <= 1.03)


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
    row = Row("h", "peak device memory that recording adds", [seconds], added, crossed=False)
    yield judged(row, Spread.of([added / limit]), "over the chunk budget, at most 1", added <= limit)


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
    reserve(2 * nbytes)
    samples = setting.in_turn({"bare": generate, "nntap": record}, setting.sizes.steps)
    yield Row("e", "bare generate", samples["bare"], None)
    ratio = Spread.of([mine / bare for mine, bare in zip(samples["nntap"], samples["bare"], strict=True)])
    row = Row("e", f"every layer of {new} decode steps", samples["nntap"], nbytes)
    yield judged(row, ratio, "time over bare generate, at most 1.05", ratio.median <= 1.05)


def all_modules(setting: Setting) -> Iterator[Row]:
    """(d) Every module in a prefill, which the link cannot follow; and the same work by nnsight's own cache."""
    model, forward, record = _prefill_of_all(setting)
    cache = record()
    nbytes = cache.stats.bytes_moved
    del cache
    reserve(nbytes)
    samples = setting.in_turn({"bare": forward, "nntap": record}, setting.sizes.rounds)
    yield Row("d", "bare forward", samples["bare"], None)
    what = f"every module, prefill of {prod(setting.sizes.prefill_of_all)} tokens, nntap"
    yield _beside_the_link(setting, "d", what, nbytes, samples)
    inputs = tokens(setting, setting.sizes.prefill_of_all)
    on_nnsight = partial(contestants.on_nnsight_cache, _wrapped(model), inputs)
    yield _beside_nntap(setting, NNSIGHTS, forward, record, on_nnsight)


def all_modules_by_others(setting: Setting) -> Iterator[Row]:
    """(d) The same by what people write themselves. Each takes seconds a run: measured apart, and in few rounds."""
    model, forward, record = _prefill_of_all(setting)
    cache = record()
    paths = cache.keys()
    reserve(cache.stats.bytes_moved)
    del cache
    inputs = tokens(setting, setting.sizes.prefill_of_all)
    others = {
        "pinned hooks": partial(contestants.on_pinned_hooks, model, forward),
        ".cpu() in hooks": partial(contestants.on_cpu_hooks, model, forward),
        ".save(), then .cpu()": partial(contestants.on_nnsight_save, _wrapped(model), inputs, paths),
    }
    for name, run in others.items():
        yield _beside_nntap(setting, name, forward, record, run)


def _prefill_of_all(setting: Setting) -> tuple[Any, Callable[[], Any], Callable[[], Any]]:
    """The model, the bare run and the recorded one."""
    model = llama(setting)
    forward = partial(contestants.run_prefill, model, tokens(setting, setting.sizes.prefill_of_all))
    return model, forward, partial(contestants.on_nntap, model, forward)


def _wrapped(model: Any) -> Any:
    from nnsight import NNsight

    return NNsight(twin(model))  # nnsight changes the modules it wraps


def _beside_nntap(
    setting: Setting, name: str, forward: Callable[[], Any], record: Callable[[], Any], run: Callable[[], Any]
) -> Row:
    """Its bytes are its own: who copies at every module copies what one hands on as often as it is handed on."""
    counted = Counted(run)
    samples = setting.in_turn({"bare": forward, "nntap": record, name: counted}, setting.sizes.few)
    row = Row("d", f"the same by {name}", samples[name], counted.nbytes)
    added = ratio_of_added(samples["nntap"], samples[name], samples["bare"])
    target = "what nntap adds over what this adds"
    if name != NNSIGHTS:
        return judged(row, added, target, None)
    return judged(row, added, f"{target}, at most 0.1", added is not None and added.median <= 0.1)


CASES: tuple[Case, ...] = (
    cold_start,
    one_tensor,
    layers_in_prefill,
    all_modules,
    decode,
    peak_memory,
    cast,
    snapshot,
    many_tensors,
    all_modules_by_others,
)
"""In this order: cold start needs a pool that holds nothing, and what comes last is the first to find no time left."""
