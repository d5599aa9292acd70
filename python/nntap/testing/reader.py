"""A second thread that reads what captures have recorded so far, while the model runs on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from random import Random
from threading import Event, Thread
from types import TracebackType
from typing import Any

import torch

from nntap.testing.programs import Program, Step
from nntap.testing.simulator import Simulator
from nntap.testing.watch import Watch

Job = Callable[[], None]
IDLE_SECONDS = 0.005


class Reader:
    """The thread, in a ``with`` block, which raises what went wrong in it.

    Half of all readers take turns with the model, so that a seed always gives the same order of events. The others run
    whenever the machine lets them, and hold what they were given until nobody asks: that ends a stall of the model.

    Args:
        random: Decides what it reads.
        watches: The captures that it may look at now.
        tolerated: Errors that reading may raise.
        spare: Records of others, which it holds too.
    """

    def __init__(
        self,
        random: Random,
        watches: Callable[[], list[Watch]],
        tolerated: tuple[type[Exception], ...],
        spare: list[torch.Tensor],
    ) -> None:
        self._random = Random(random.random())
        self._in_turns = random.random() < 0.5
        self._watches = watches
        self._tolerated = tolerated
        self._jobs: SimpleQueue[tuple[Job, Event] | None] = SimpleQueue()
        self._held: list[Any] = spare
        self._problems: list[Exception] = []
        self._thread = Thread(target=self._work)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._held.clear()
        if self._problems and error is None:
            raise self._problems[0]

    def look(self) -> None:
        """Has it read some of what is there by then."""
        self._ask(self._look)

    def take(self, watch: Watch) -> None:
        """Gives it a capture that has ended. It reads the whole of it and drops it."""
        self._ask(partial(self._finish, watch))

    def _ask(self, job: Job) -> None:
        done = Event()
        self._jobs.put((job, done))
        if self._in_turns:
            done.wait()

    def _work(self) -> None:
        while True:
            try:
                asked = self._jobs.get(timeout=IDLE_SECONDS)
            except Empty:
                if not self._in_turns:
                    del self._held[-1:]
                continue
            if asked is None:
                return
            self._do(*asked)
            del asked  # holds a capture

    def _do(self, job: Job, done: Event) -> None:
        try:
            job()
        except self._tolerated:
            pass
        except Exception as problem:
            self._problems.append(problem)
        finally:
            done.set()

    def _look(self) -> None:
        places = [(watch, *place) for watch in self._watches() for place in watch.places()]
        for watch, path, number in self._random.sample(places, min(len(places), 3)):
            watch.read_beside(path, number)

    def _finish(self, watch: Watch) -> None:
        watch.read_all(self._tolerated)
        watch.check_kept()
        if not self._in_turns:
            self._held.append(watch)


class ReadProgram(Program):
    """A random program with a reader beside it.

    Attributes:
        spare: Records that the reader may drop.
    """

    def __init__(self, sim: Simulator, random: Random, *, devices: int, chunk_bytes: int) -> None:
        super().__init__(sim, random, devices=devices, chunk_bytes=chunk_bytes)
        self.spare: list[torch.Tensor] = []

    def run(self) -> None:
        with Reader(self.random, lambda: self.watches + self.stopped, self.tolerated, self.spare) as self.reader:
            super().run()

    def compute(self, module: Step) -> Any:
        if self.random.random() < 0.3:
            self.reader.look()
        return super().compute(module)

    def _drop_watch(self) -> None:
        watch = next((watch for watch in self.stopped if not watch.on_device), None)
        if watch is None or self.random.random() < 0.3:  # those on the device are over when the device is
            super()._drop_watch()
        else:
            self.stopped.remove(watch)
            self.reader.take(watch)
