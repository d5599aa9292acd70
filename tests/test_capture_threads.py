"""Threads that record, and threads that read while others record."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import nntap
from helpers import IDS, Give, Model


@pytest.fixture
def model() -> Model:
    return Model().eval()


def test_several_threads_on_several_models_each_have_their_own_records() -> None:
    problems: list[str] = []

    def work(number: int) -> None:
        model = nn.Sequential(*(nn.Identity() for _ in range(5)))
        for turn in range(40):
            x = torch.full((7, 11), number * 1000.0 + turn)
            with nntap.capture(model, include_inputs=True) as cache:
                model(x)
            ok = all(torch.equal(view.output, x) and torch.equal(view.input, x) for view in cache.values())
            if not ok or len(cache) != 6:
                problems.append(f"thread {number}, turn {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_two_threads_on_one_model_have_their_inputs_paired_with_their_outputs() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(300, 300))
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        barrier.wait(60)
        for turn in range(30):
            model(torch.full((64, 300), number * 1000.0 + turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    with torch.no_grad(), nntap.capture(model, include_inputs=True) as cache:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(cache[""]) == 60
    for path in ("0", "1", ""):
        starts = []
        for entry in cache[path]:
            starts.append(entry.input[0, 0].item())
            expected = entry.input if path == "0" else model[1](entry.input)
            assert torch.allclose(entry.output, expected, rtol=1e-4, atol=1e-2)
        assert sorted(starts) == [number * 1000.0 + turn for number in (1, 2) for turn in range(30)]


def test_large_records_of_several_threads_are_whole() -> None:
    # Above 4 MiB the copy lets other threads run.
    own = threading.local()
    model = Give(lambda: torch.full((1_500_000,), own.value))

    def work(value: float) -> None:
        own.value = value
        for _ in range(5):
            model()

    values = [1.0, 2.0, 3.0]
    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    with nntap.capture(model) as cache:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    outputs = cache[""].output
    assert sorted(output[0].item() for output in outputs) == sorted(values * 5)
    assert all((output == output[0]).all() for output in outputs)


def test_a_cache_can_be_read_while_it_is_recorded(model: Model) -> None:
    seen: list[Any] = []
    model.layers[2].register_forward_pre_hook(lambda *_: seen.append(cache["layers.1"].output))
    with nntap.capture(model) as cache:
        assert len(cache) == 0
        assert "embed" not in cache
        model(IDS)
        assert torch.equal(seen[0], cache["layers.1"].output)
        assert cache["embed"].output.shape == (1, 3, 4)
        model(IDS)
        assert len(cache["embed"]) == 2
        assert cache["embed"][0].output is cache["embed"].output[0]


def test_a_cache_can_be_read_by_one_thread_while_another_records() -> None:
    model = nn.Sequential(*(nn.Identity() for _ in range(4)))
    done = threading.Event()

    def run() -> None:
        for turn in range(200):
            model(torch.full((10,), float(turn)))
        done.set()

    runner = threading.Thread(target=run)
    with nntap.capture(model) as cache:
        runner.start()
        while not done.is_set():
            for view in cache.values():
                for number, entry in enumerate(view):
                    assert entry.output.tolist() == [float(number)] * 10
        runner.join()
    assert len(cache["3"]) == 200
