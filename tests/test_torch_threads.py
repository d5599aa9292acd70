"""Large tensors are copied on the threads that torch's own operations use."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

import nntap
from helpers import assert_cast_is, assert_script_runs, assert_tensor_is, record

MIB = 1 << 20
LARGE = 3 * MIB + 37  # elements: many parts, and a rest that fills no vector and no cache line


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_it_takes_as_many_as_torch(threads: int) -> None:
    assert nntap.build_info()["cpu_threads"] == torch.get_num_threads() == threads


@pytest.mark.parametrize("shift", [0, 1, 7])
@pytest.mark.parametrize("target", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("source", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_large_tensor_is_copied_whole(threads: int, source: torch.dtype, target: torch.dtype, shift: int) -> None:
    tensor = torch.arange(LARGE + shift).remainder(60_001).to(source)[shift:]
    read, stats = record(tensor, dtype=target)
    assert (stats.records, stats.slow) == (1, {})
    if source == target:
        assert_tensor_is(read, tensor)
    else:
        assert_cast_is(read, tensor.to(target))


VIEWS = {
    "transposed": lambda base: base.t(),
    "rows apart": lambda base: base[:, :1500],
    "every third": lambda base: base[::3, ::2],
    "few long rows": lambda base: base.view(3, -1)[:, 5:],
    "permuted": lambda base: base.view(4, 384, 2, 1024).permute(2, 0, 3, 1),
    "expanded": lambda base: base[0].expand(1000, 2048),
    "bytes": lambda base: base.view(torch.uint8)[:, 3:],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_large_strided_tensor_is_copied_whole(threads: int, view: object) -> None:
    assert callable(view)
    tensor = view(torch.randn(1536, 2048))
    for dtype in (None, torch.float16) if tensor.is_floating_point() else (None,):
        read, stats = record(tensor, dtype=dtype)
        assert stats.slow == {}
        if dtype is None:
            assert_tensor_is(read, tensor.clone())
        else:
            assert_cast_is(read, tensor.to(dtype))


@pytest.mark.parametrize("place", [0, 70, LARGE // 2, LARGE - 1])
def test_one_changed_element_makes_a_record_of_its_own(threads: int, place: int) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Identity(), torch.nn.Identity()

        def forward(self, x: torch.Tensor, edit: bool) -> None:
            self.first(x)
            if edit:
                x.data[place] += 1  # which no version counter sees
            self.second(x)

    model, x = Twice(), torch.zeros(LARGE)
    for edit in (False, True):
        with nntap.capture(model, ["first", "second"]) as cache:
            model(x, edit)
        assert cache.stats.shared == (0 if edit else 1)
        assert cache["second"].output[place] == cache["first"].output[place] + edit


def test_threads_that_record_at_once_do_not_mix(threads: int) -> None:
    tensors = [torch.full((LARGE,), float(number)) for number in range(4)]
    read: list[torch.Tensor | None] = [None] * 4

    def run(number: int) -> None:
        read[number] = record(tensors[number])[0]

    running = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for tensor, one in zip(tensors, read, strict=True):
        assert one is not None
        assert torch.equal(one, tensor)


def test_a_forked_process_copies_alone() -> None:
    # OpenMP's threads do not come along: asking them for anything would wait for ever.
    script = """
        import os, warnings, torch, nntap
        warnings.simplefilter("ignore")  # Python 3.12 advises against forking with threads
        torch.set_num_threads(2)
        x = torch.ones(4 << 20)
        (x + x).sum()
        model = torch.nn.Identity()
        with nntap.capture(model) as cache:
            model(x)
        pid = os.fork()
        if pid == 0:
            with nntap.capture(model) as cache:
                model(x)
            same = bytes(cache[""].output.numpy()) == bytes(x.numpy())
            os._exit(0 if same and nntap.build_info()["cpu_threads"] == 1 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), nntap.build_info()["cpu_threads"])
    """
    assert_script_runs(script, says="0 2")
