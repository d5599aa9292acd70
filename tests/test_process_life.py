"""Processes that fork, end, or lose threads while records live."""

from __future__ import annotations

import pytest

from helpers import assert_script_runs

SETUP = """
import atexit, os, sys, threading, time, warnings
import torch, nntap
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
torch.set_num_threads(1)  # torch's own threads do not survive a fork

model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 8)).eval()

def recorded(value, count=1000):
    class Give(torch.nn.Module):
        def forward(self):
            return torch.full((count,), float(value))
    give = Give()
    with nntap.capture(give) as cache:
        give()
    return cache

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
"""


def assert_runs(script: str, says: str = "") -> None:
    body = "\n".join(line.removeprefix("        ") for line in script.splitlines())
    assert_script_runs(SETUP + body, says=says)


# ---- fork ----


def test_a_child_captures_and_reads_and_the_parent_s_records_survive() -> None:
    assert_runs("""
        read, unread = recorded(1), recorded(2)
        tensor = read[""].output

        def child():
            assert (tensor == 1).all() and (unread[""].output == 2).all()
            with nntap.capture(model, include_inputs=True) as cache:
                model(torch.ones(2, 8))
            assert len(cache) == 4 and cache["0"].output.shape == (2, 8)
            tensor.fill_(9)  # its own copy
            del globals()["unread"]
            assert nntap.trim() >= 0

        for _ in range(5):
            in_child(child)
        assert (tensor == 1).all()
        assert (unread[""].output == 2).all()
        assert (recorded(3)[""].output == 3).all()
    """)


def test_a_child_may_be_forked_while_another_thread_waits_for_memory() -> None:
    assert_runs("""
        nntap.set_limits(host_bytes=32 << 20, wait_seconds=60)
        held, small = [recorded(1, 6 << 20)], 1000

        def wait():
            waited.append(recorded(2, 6 << 20))

        waited = []
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.3)
        for _ in range(5):  # wakes it, and has it wait again
            recorded(3)
            time.sleep(0.01)

        def child():
            for number in range(6):
                again = threading.Thread(target=lambda: held.append(recorded(4, 6 << 20)))
                again.start()
                time.sleep(0.12)
                recorded(5)
                held.pop(0)
                again.join()

        in_child(child)
        held.clear()
        waiter.join()
        assert (waited[0][""].output == 2).all()
    """)


def test_a_child_s_first_large_copy_needs_no_thread_of_torch() -> None:
    assert_runs("""
        recorded(1)
        torch.set_num_threads(2)
        large = torch.ones(4 << 20)  # runs torch's threads, and the core has not asked for them yet

        class Give(torch.nn.Module):
            def forward(self):
                return large

        def child():
            with nntap.capture(give := Give()) as cache:
                give()
            torch.set_num_threads(1)  # for the comparison, which is torch's
            assert (cache[""].output == 1).all()

        in_child(child)
    """)


def test_a_child_that_is_the_first_to_use_the_core_needs_no_thread_of_torch() -> None:
    assert_script_runs(
        """
        import os, torch, nntap
        torch.set_num_threads(2)
        large = torch.zeros(4 << 20)
        large + 1  # runs torch's threads, and the core is not loaded
        model = torch.nn.Flatten(0)
        child = os.fork()
        if child == 0:
            with nntap.capture(model) as cache:
                model(large)
            torch.set_num_threads(1)  # for the comparison, which is torch's
            os._exit(0 if (cache[""].output == 0).all() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        says="0",
    )


def test_a_child_may_be_forked_while_other_threads_record() -> None:
    assert_runs("""
        go_on = True
        recorded(1)  # a child cannot finish an import that another thread had begun

        def work():
            while go_on:
                recorded(1, 50_000)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()

        def child():
            kept = [recorded(number, 50_000) for number in range(10)]
            assert all((cache[""].output == number).all() for number, cache in enumerate(kept))
            kept.clear()
            nntap.trim()

        for _ in range(15):
            in_child(child)
        go_on = False
        for thread in threads:
            thread.join()
    """)


def test_a_child_may_be_forked_while_another_thread_reserves() -> None:
    assert_runs("""
        go_on = True
        slab = nntap.pool_stats()["slab_bytes"]

        def work():
            while go_on:
                nntap.reserve(8 * slab)
                nntap.trim()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()

        def child():
            nntap.trim()
            assert nntap.pool_stats()["reserved_bytes"] == 0

        for _ in range(40):
            in_child(child)
        go_on = False
        thread.join()
    """)


def test_a_child_of_a_block_that_captures_records_for_itself() -> None:
    assert_runs("""
        with nntap.capture(model, "0") as cache:
            model(torch.ones(1, 8))

            def child():
                model(torch.ones(1, 8))
                assert len(cache["0"]) == 2

            in_child(child)
            assert len(cache["0"]) == 1
    """)


# ---- the end of the interpreter ----


@pytest.mark.parametrize(
    "left",
    [
        "cache = recorded(1)",
        "tensor = recorded(1)[''].output",
        "array = recorded(1)[''].output.numpy()",
        "views = [torch.from_dlpack(recorded(1)[''].output), memoryview(recorded(2)[''].output.numpy())]",
        "sys.kept = recorded(1)[''].output",
        "torch.nn.Module.kept = recorded(1)",
        "capture = nntap.capture(model, include_inputs=True); cache = capture.__enter__(); model(torch.ones(1, 8))",
        "cycle = [recorded(1)]; cycle.append(cycle)",
        "atexit.register(lambda cache: cache[''].output.sum(), recorded(1))",
        "atexit.register(recorded, 1)",
        "tensor = recorded(1)[''].output; sys.exit(0)",
    ],
)
def test_the_interpreter_ends_quietly_with(left: str) -> None:
    assert_runs(f"\n        {left}")


def test_the_interpreter_ends_inside_a_block() -> None:
    assert_runs(
        """
        with nntap.capture(model) as cache:
            model(torch.ones(1, 8))
            print(len(cache), flush=True)
            sys.exit(0)
    """,
        says="4",
    )


# ---- threads ----


def test_records_outlive_the_thread_that_made_them() -> None:
    assert_runs("""
        kept = []
        threads = [threading.Thread(target=lambda n=n: kept.append((n, recorded(n)))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all((cache[""].output == n).all() for n, cache in kept)
    """)
