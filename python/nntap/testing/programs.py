"""Random programs on a simulated device: models that compute, captures that watch them, readers, errors, threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from random import Random
from typing import Any

import torch
from torch import nn

from nntap.core import OUTPUT, location_code
from nntap.memory import trim
from nntap.options import Options
from nntap.testing.memory import DTYPES, FLOATS, LOOKS, MOST, Buffer, Piece, each, pieces_of, some_values
from nntap.testing.simulator import Simulator, Stream
from nntap.testing.watch import Watch, require_equal

MODULES = 8


class Stop(Exception):
    """A model that gives up in the middle."""


class Unwalkable(Exception):
    pass


class Raising(torch.Tensor):
    """A tensor that cannot be recorded, whatever is asked of it: the record ends in the middle of its value."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise Unwalkable


class Step(nn.Module):
    """A module of the random model: it computes, calls its children, edits in place, and gives back a nest."""

    program: Program

    def __init__(self, program: Program, depth: int) -> None:
        super().__init__()
        self.given: Any = None  # by the last call, as pieces
        object.__setattr__(self, "program", program)
        while depth > 0 and program.modules < MODULES and program.random.random() < 0.7:
            program.modules += 1
            self.add_module(f"s{program.modules}", Step(program, depth - 1))

    def forward(self, *args: Any) -> Any:
        return self.program.compute(self)


class Program:
    """One thread's part of a schedule: a random model, run while random captures watch it.

    Args:
        sim: The simulation.
        random: Decides everything.
        devices: How many devices it uses.
        chunk_bytes: The engine's chunks, so that sizes lie around theirs.

    Attributes:
        tolerated: What the library may raise from anywhere, and lose records: errors of a driver that fails, or of
            memory that runs out.
    """

    def __init__(self, sim: Simulator, random: Random, *, devices: int, chunk_bytes: int) -> None:
        self.sim = sim
        self.random = random
        self.chunk_bytes = chunk_bytes
        self.tolerated: tuple[type[Exception], ...] = ()
        self.modules = 1
        self.floats = random.random() < 0.6  # alone: then captures may cast, without torch's help
        self.streams = {device: self._some_streams(device) for device in range(devices)}
        self.current: dict[int, Stream] = {}
        self.args: Any = ()  # of the call that runs, as pieces
        self.running: list[Step] = []
        self.recorded_on: dict[int, Stream] = {}  # by handle
        self.buffers: list[Buffer] = []
        self.pieces: list[Piece] = []  # what may be handed on
        self.watches: list[Watch] = []  # running
        self.stopped: list[Watch] = []
        self.loose: list[tuple[Any, list[torch.Tensor]]] = []  # recorders that no capture closes, with the truth
        self.overtaking: list[tuple[torch.Tensor, torch.Tensor]] = []  # records, and what they must be
        self.model = Step(self, 3)

    def run(self) -> None:
        """The whole program, with a look at all that it recorded.

        Raises:
            WrongValue: If a record is not what the module gave back, or a copy that the model made went wrong.
        """
        if self.random.random() < 0.2:
            self._tolerate(self._before_all)
        for _ in range(self.random.randint(1, 3)):
            self._round()
        for watch in self.watches + self.stopped:
            watch.stop()
            watch.read_all(self.tolerated)

    def check(self) -> None:
        """Compares again all that was read, and what the model's own memory holds. Everything must have run.

        Raises:
            WrongValue: If something is not what it must be.
        """
        for watch in self.watches + self.stopped:
            watch.check_kept()
        for record, truth in self.overtaking:
            require_equal("a record in memory of others that were dropped", record, truth)
        for buffer in self.buffers:
            require_equal("memory of the model", buffer.tensor, buffer.truth)

    def forget(self) -> None:
        """Drops all that it holds."""
        for held in (self.watches, self.stopped, self.loose, self.overtaking, self.pieces, self.buffers):
            held.clear()
        for module in self.model.modules():
            object.__setattr__(module, "program", None)

    def _some_streams(self, device: int) -> list[Stream]:
        count = self.random.randrange(3)
        made = [self.sim.stream(lazy=self.random.random() < 0.8, device=device) for _ in range(count)]
        return [self.sim.default_stream(device), *made]

    def _before_all(self) -> None:
        """The first that the engine sees is a nest that cannot be walked, while memory that was freed is in use."""
        for streams in self.streams.values():
            stream = self.random.choice(streams)
            values = some_values(self.random, self.chunk_bytes // 2, torch.float16)
            self._move(self._buffer_of(values, stream))
            del self.buffers[-2]
            self._spoil(self.buffers[-1])

    # ---- a round: captures begin, the model runs, captures end ----

    def _round(self) -> None:
        while self.random.random() < 0.7:
            self._tolerate(self._watch)
        for _ in range(self.random.randint(1, 2)):
            with suppress(Stop, *self.tolerated):
                self._call(self.model)
            self._between()
        while self.watches and self.random.random() < 0.8:
            self._tolerate(self._stop_watch)

    def _between(self) -> None:
        actions = [self._read, self._stop_watch, self._drop_watch, self._loosen, self._end_loose, self._upload]
        actions += [self._round_trip, self._overtake, self._free, *[self._trim] * (self.random.random() < 0.02)]
        for _ in range(self.random.randrange(6)):
            self._tolerate(self.random.choice(actions))

    def _tolerate(self, action: Callable[[], None]) -> None:
        with suppress(*self.tolerated):
            action()

    # ---- the model ----

    def _call(self, module: Step) -> Any:
        """Calls it with the current streams, or others, and whatever it is given."""
        random = self.random
        outer = self.current, self.args
        if not self.current or random.random() < 0.4:
            self.current = {device: random.choice(streams) for device, streams in self.streams.items()}
        self.args = tuple(random.sample(self.pieces, min(len(self.pieces), random.randrange(3))))
        self._bring(self.args)
        with ExitStack() as entered:
            for stream in self.current.values():
                entered.enter_context(stream)
            for watch in self.watches:
                watch.takes(module, (each(self.args, lambda piece: piece.truth), {}))
            self.running.append(module)
            try:
                module(*each(self.args, lambda piece: piece.tensor))
            except BaseException:
                for watch in self.watches:
                    watch.failed(module)
                raise
            finally:
                self.running.pop()
                self.current, self.args = outer
                given, module.given = module.given, None
        return given

    def compute(self, module: Step) -> Any:
        """The forward of a module: what it gives back, as tensors."""
        random = self.random
        mine: list[Piece] = list(self.args)
        children: list[Any] = list(module.children())
        for child in [None, *children, *random.sample(children, min(len(children), random.randrange(2)))]:
            if child is not None:
                mine += pieces_of(self._call(child))
            for _ in range(random.randrange(3)):
                mine.append(self._new_piece())
            if mine and random.random() < 0.3:
                self._edit(random.choice(mine).buffer)
            if random.random() < 0.1:
                self._tolerate(random.choice((self._read, self._upload, self._free, self._loosen, self._watch)))
            if self.buffers and random.random() < 0.1:
                self._move(random.choice(self.buffers))
        if random.random() < 0.04:
            raise Stop
        module.given = self._nest(random.sample(mine, random.randint(0, min(len(mine), 4))))
        self._bring(module.given)
        truth = each(module.given, lambda piece: piece.truth)
        recorded = [watch.gives(module, truth) for watch in self.watches]
        if any(recorded):
            self._recorded(pieces_of(module.given))
        return each(module.given, lambda piece: piece.tensor)

    def _recorded(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if not piece.recorded and piece.tensor.numel():  # else it may be shared, and nothing happens on the stream
                self.recorded_on[piece.buffer.stream.handle] = piece.buffer.stream
            piece.recorded = True

    def _bring(self, nest: Any) -> None:
        for piece in pieces_of(nest):
            piece.buffer.bring(self.current[piece.buffer.home.device])

    def _nest(self, pieces: list[Piece]) -> Any:
        if len(pieces) == 1 and self.random.random() < 0.7:
            return pieces[0]
        kind = self.random.randrange(4)
        if kind == 0:
            return {f"k{number}": piece for number, piece in enumerate(pieces)}
        if kind == 1:
            return [*pieces, None]
        if kind == 2 and len(pieces) > 1:
            return (pieces[0], ("text", pieces[1:]))
        return tuple(pieces)

    def _new_piece(self) -> Piece:
        random = self.random
        if self.buffers and random.random() < 0.2:
            buffer = random.choice(self.buffers)
            buffer.bring(self.current[buffer.home.device])
        else:
            buffer = self._new_buffer(self.current[random.choice(list(self.current))])
        piece = Piece(buffer, random.choice(LOOKS))
        self.pieces = [*self.pieces[-8:], piece]
        return piece

    def _new_buffer(self, stream: Stream) -> Buffer:
        random = self.random
        dtype = random.choice(FLOATS if self.floats else DTYPES)
        chunk = max(1, self.chunk_bytes // dtype.itemsize)
        least, most = random.choice(((1, 8), (1, chunk), (chunk, chunk), (chunk + 1, 4 * chunk)))
        values = some_values(random, min(MOST, random.randint(least, most)), dtype)
        return self._buffer_of(values, stream)

    def _buffer_of(self, values: torch.Tensor, stream: Stream) -> Buffer:
        buffer = Buffer(self.sim, stream, self.sim.empty(values.numel(), values.dtype, stream), values)
        buffer.overwrite(values)
        self.buffers.append(buffer)
        return buffer

    def _edit(self, buffer: Buffer) -> None:
        buffer.bring(self.current[buffer.home.device])
        count = buffer.tensor.numel()
        start = self.random.randrange(count) if self.random.random() < 0.3 else 0
        buffer.overwrite(some_values(self.random, count - start, buffer.tensor.dtype), start)

    def _move(self, source: Buffer) -> None:
        """Copies a buffer to a new one, on the stream that works on it."""
        buffer = self._buffer_of(some_values(self.random, source.truth.numel(), source.truth.dtype), source.stream)
        if source.stream.lazy:
            self.sim.copy(buffer.tensor, source.tensor, source.stream)
        else:
            buffer.tensor.copy_(source.tensor)
        buffer.truth = source.truth

    def _free(self) -> None:
        """Gives memory back, as a model does with activations that nobody needs: the next one gets it at once."""
        for buffer in self.random.sample(self.buffers, len(self.buffers) // 2):
            self.buffers.remove(buffer)
            self.pieces = [piece for piece in self.pieces if piece.buffer is not buffer]

    # ---- captures ----

    def _watch(self) -> None:
        random = self.random
        steps = [module for module in self.model.modules() if module not in self.running]
        if not steps:
            return
        some = steps if random.random() < 0.5 else random.sample(steps, random.randint(1, len(steps)))
        dtype = random.choice((None, None, torch.float16, torch.bfloat16, torch.float32, torch.float8_e5m2))
        dtype = dtype if self.floats else None
        inputs = random.random() < 0.3
        options = {
            "device": None if random.random() < 0.15 else "cpu",
            "dtype": dtype,
            "include_inputs": inputs,
            "include_output": not inputs or random.random() < 0.7,
        }
        self.watches.append(Watch.start(self.model, some, options))

    def _trim(self) -> None:
        trim()

    def _stop_watch(self) -> None:
        if self.watches:
            self.stopped.append(self.watches.pop(self.random.randrange(len(self.watches))))
            self.stopped[-1].stop()

    def _drop_watch(self) -> None:
        """Whatever of it is under way."""
        if self.random.random() < 0.5:
            self._stop_watch()
        if self.stopped:
            del self.stopped[self.random.randrange(len(self.stopped))]

    def _read(self) -> None:
        readable = [(watch, place) for watch in self.watches + self.stopped for place in watch.places()]
        for watch, (path, number) in self.random.sample(readable, min(len(readable), self.random.randint(1, 3))):
            watch.read(path, number)

    def _loosen(self) -> None:
        """Records on a recorder that nobody will close: what it holds is dropped before it was ever flushed."""
        if not self.pieces:
            return
        stream = self.random.choice(self.pieces).buffer.stream
        pieces = [piece for piece in self.pieces if piece.buffer.stream is stream][: self.random.randint(1, 3)]
        recorder = Options.check("cpu", None, True, True, False).recorder(1)
        with stream:
            recorder.record(location_code(0, OUTPUT), [piece.tensor for piece in pieces])
        if self.random.random() < 0.4:
            recorder.close()  # begins the copy, and what it brings is dropped at once
            return
        self.loose.append((recorder, [piece.truth for piece in pieces]))

    def _round_trip(self) -> None:
        """A record goes back to the device on one stream and is dropped, and the next is made on another."""
        streams = self.random.choice(list(self.streams.values()))
        if len(streams) < 2:
            return
        there, back = self.random.sample(streams, 2)
        self._recorded_now(there)  # both streams are known from now on
        record, truth = self._recorded_now(back)
        buffer = self._buffer_of(some_values(self.random, truth.numel(), truth.dtype), back)
        self.sim.upload(buffer.tensor, record, back)
        buffer.truth = truth
        del record
        record, truth = self._recorded_now(there)
        require_equal("a record behind a round trip", record, truth)

    def _overtake(self) -> None:
        """Records are dropped on their way to the host, and the next one gets their memory."""
        stream = self.random.choice(self.random.choice(list(self.streams.values())))
        first = self._new_buffer(stream)
        for _ in range(3):
            recorder = Options.check("cpu", None, True, True, False).recorder(1)
            with stream:
                recorder.record(location_code(0, OUTPUT), self._buffer_like(first).tensor)
            recorder.close()
            del recorder
        self.overtaking.append(self._recorded_now(stream, first))

    def _buffer_like(self, other: Buffer) -> Buffer:
        return self._buffer_of(some_values(self.random, other.truth.numel(), other.truth.dtype), other.stream)

    def _recorded_now(self, stream: Stream, buffer: Buffer | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        buffer = buffer or self._new_buffer(stream)
        recorder = Options.check("cpu", None, True, True, False).recorder(1)
        with stream:
            recorder.record(location_code(0, OUTPUT), buffer.tensor)
        return recorder.read(0, 0, OUTPUT), buffer.truth

    def _spoil(self, buffer: Buffer) -> None:
        recorder = Options.check("cpu", None, True, True, False).recorder(1)
        with buffer.stream, suppress(Unwalkable):
            recorder.record(location_code(0, OUTPUT), [buffer.tensor, torch.ones(1).as_subclass(Raising)])

    def _end_loose(self) -> None:
        if not self.loose:
            return
        recorder, truths = self.loose.pop(self.random.randrange(len(self.loose)))
        if self.random.random() < 0.3:
            for record, truth in zip(recorder.read(0, 0, OUTPUT), truths, strict=True):
                require_equal("a record of a loose recorder", record, truth)

    def _upload(self) -> None:
        """The model takes a record back to the device, in a copy that the host does not wait for, and drops it."""
        watches = [watch for watch in self.stopped if watch.kept and not watch.on_device]
        if not watches or not self.recorded_on:
            return
        watch = self.random.choice(watches)
        for record, truth in self.random.sample(watch.kept, min(len(watch.kept), 3)):
            if not (record.numel() and record.is_contiguous()):
                continue
            stream = self.random.choice(list(self.recorded_on.values()))
            buffer = self._buffer_of(some_values(self.random, truth.numel(), truth.dtype), stream)
            self.sim.upload(buffer.tensor, record.view(-1), stream)
            buffer.truth = truth.flatten().contiguous()
        self.stopped.remove(watch)
