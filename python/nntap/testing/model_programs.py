"""Random programs of real models: captures watch them, a reader reads beside them, and some runs give up half-way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from random import Random
from typing import Any, ClassVar

import torch

from nntap.memory import trim
from nntap.testing.models import Given, subjects
from nntap.testing.programs import Stop
from nntap.testing.reader import Reader
from nntap.testing.simulator import Simulator, Stream
from nntap.testing.watch import Watch

DTYPES = (None, None, torch.float16, torch.bfloat16, torch.float64)


class ModelProgram:
    """One schedule's part that computes: torch's operations, on streams where they happen at once.

    Args:
        sim: The simulation.
        random: Decides everything.

    Attributes:
        tolerated: What the library may raise from anywhere, and lose records.
        spare: Records that a reader may drop.
    """

    purpose: ClassVar[str] = "capture"

    def __init__(self, sim: Simulator, random: Random) -> None:
        self.random = random
        self.tolerated: tuple[type[Exception], ...] = ()
        self.spare: list[torch.Tensor] = []
        self.subject = random.choice(subjects(self.purpose))
        self.streams: list[Stream] = [sim.default_stream(), *(sim.stream() for _ in range(random.randrange(3)))]
        self.watches: list[Watch] = []  # running
        self.stopped: list[Watch] = []
        self.reader: Reader | None = None

    def run(self) -> None:
        """The whole program, with a look at all that it recorded.

        Raises:
            WrongValue: If a record is not what the module gave back.
        """
        with ExitStack() as open_now:
            if self.random.random() < (0.8 if self.spare else 0.5):
                reader = Reader(self.random, lambda: self.watches + self.stopped, self.tolerated, self.spare)
                self.reader = open_now.enter_context(reader)
            for _ in range(self.random.randint(1, 2)):
                self._round()
                self._between()
            self.stop_all()
            for watch in self.stopped:
                watch.read_all(self.tolerated)

    def check(self) -> None:
        """Compares again all that was read. Everything must have run.

        Raises:
            WrongValue: If something is not what it must be.
        """
        for watch in self.stopped:
            watch.check_kept()

    def forget(self) -> None:
        """Drops all that it holds."""
        self.stop_all()  # the model lives on, with their hooks
        self.stopped.clear()
        self.subject.follower.forget()

    def start_watches(self) -> None:
        while len(self.watches) < 3 and self.random.random() < 0.7:
            with suppress(*self.tolerated):
                self.watches.append(Watch.start(self.subject.model, self.some_modules(), self.some_options()))

    def run_model(self, given: Given) -> None:
        """Calls the model. It may raise `Stop`, as it may everywhere in the middle."""
        args, kwargs = given
        self.subject.model(*args, **kwargs)

    def end_run(self) -> None:
        """Captures go on."""

    def stop_all(self) -> None:
        while self.watches:
            self.watches[-1].stop()
            self.stopped.append(self.watches.pop())

    def some_modules(self) -> list[torch.nn.Module]:
        modules = list(self.subject.model.modules())
        return modules if self.random.random() < 0.5 else self.random.sample(modules, self.random.randint(1, 5))

    def some_options(self) -> dict[str, Any]:
        inputs = self.random.random() < 0.4
        return {
            "device": None if self.random.random() < 0.15 else "cpu",
            "dtype": self.random.choice(DTYPES),
            "include_inputs": inputs,
            "include_output": not inputs or self.random.random() < 0.7,
        }

    # ---- a round: captures begin, the model runs, captures end ----

    def _round(self) -> None:
        self.start_watches()
        follower = self.subject.follower
        follower.watches = self.watches
        follower.in_the_middle = self._in_the_middle
        mode = self.random.choice((torch.no_grad, torch.inference_mode))
        for _ in range(self.random.randint(1, 2)):
            raised = True
            with mode(), self.random.choice(self.streams), suppress(Stop, *self.tolerated):
                self.run_model(self.subject.some_input(self.random))
                raised = False
            follower.settle(raised)
            self.end_run()
        if self.random.random() < 0.8:
            self.stop_all()

    def _in_the_middle(self) -> None:
        chance = self.random.random()
        if chance < 0.01:
            raise Stop
        if chance < 0.08:
            self._read()
        elif chance < 0.2:
            self._look()
        elif chance < 0.25:
            self._drop()

    def _between(self) -> None:
        actions: list[Callable[[], None]] = [self._read, self._look, self._drop, self.stop_all]
        actions += [_trim] * (self.random.random() < 0.05)
        for _ in range(self.random.randrange(4)):
            with suppress(*self.tolerated):
                self.random.choice(actions)()

    def _read(self) -> None:
        places = [(watch, *place) for watch in self.watches + self.stopped for place in watch.places()]
        for watch, path, number in self.random.sample(places, min(len(places), 3)):
            watch.read_beside(path, number)

    def _look(self) -> None:
        if self.reader is not None:
            self.reader.look()

    def _drop(self) -> None:
        watch = next((watch for watch in self.stopped if not watch.on_device), None)
        if watch is None:  # those on the device are over when the device is
            return
        self.stopped.remove(watch)
        if self.reader is not None:
            self.reader.take(watch)


def _trim() -> None:
    trim()
