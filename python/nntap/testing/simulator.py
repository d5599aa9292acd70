"""The simulated driver: streams, events and copies that run when a seed says so, within CUDA's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Literal

import torch

from nntap import _core
from nntap.core import Recorder as _connected  # noqa: F401  (connects the core to torch)
from nntap.testing.report import Copy, DeviceMemory, Report

_testing = _core.testing

Pace = Literal["any", "never", "always", "trickle", "fits", "timed"]

ENTRIES: tuple[str, ...] = _testing.ENTRIES
"""The names of the driver table's entries."""


class Stream:
    """A stream of the model's. Within ``with stream:`` the operations of this thread go to it."""

    def __init__(self, handle: int, device: int, lazy: bool = False) -> None:
        self.handle = handle
        self.device = device
        self.lazy = lazy

    def __enter__(self) -> Stream:
        _testing.push_stream(self.device, self.handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _testing.pop_stream()

    def __repr__(self) -> str:
        return f"Stream(handle={self.handle:#x}, device={self.device})"


class RawDriver:
    """The entries of the driver table, as functions of their names.

    Handles and addresses are whole numbers. What an entry gives through a pointer is returned: ``event_create(2)``
    gives ``(result, event)``, an entry that gives nothing returns its result alone.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in ENTRIES:
            raise AttributeError(f"the driver table has no entry {name!r}")
        return partial(_testing.driver_call, name)


class Simulator:
    """The simulation that runs; `simulated` makes it.

    The model's operations are torch's own, which really happen at once on the host: right for an eager stream. On a
    lazy stream nothing has happened yet when a module returns, as on a GPU; there the model computes through `write`
    and `copy`.
    """

    def __init__(self, lazy: bool = False) -> None:
        self.raw = RawDriver()
        self._lazy = lazy  # the default streams
        self._streams: dict[int, Stream] = {}
        self._final: Report | None = None
        self._kept: list[torch.Tensor] = []  # what operations that have not run yet refer to, and `empty` did not make
        self._heap: set[int] = set()  # addresses of storages that `empty` made; they stay valid

    # ---- streams ----

    def stream(self, *, lazy: bool = False, device: int = 0) -> Stream:
        """A new stream for the model, beside the default one; it lives as long as the simulation.

        Args:
            lazy: Whether its operations wait until the schedule, or somebody who waits for them, lets them run. An
                eager stream runs each one, and all it depends on, when it is enqueued.
            device: The device that it belongs to.
        """
        made = Stream(_testing.add_stream(device, lazy), device, lazy)
        self._streams[made.handle] = made
        return made

    def default_stream(self, device: int = 0) -> Stream:
        """The stream that a thread's operations go to outside of any ``with stream:``."""
        return Stream(0, device, self._lazy)

    def current_stream(self, device: int = 0) -> Stream:
        """The stream that this thread's operations go to now."""
        return self._streams.get(_testing.current_stream(device)) or self.default_stream(device)

    def set_capturing(self, stream: Stream, capturing: bool) -> None:
        """Says whether a graph is being captured from the stream; then the engine may only ask whether it is."""
        _testing.set_capturing(stream.handle, stream.device, capturing)

    # ---- what the model does ----

    def write(self, tensor: torch.Tensor, values: torch.Tensor, stream: Stream | None = None) -> None:
        """Enqueues an operation that gives the tensor these values. Until it runs, the tensor is what it was.

        Args:
            tensor: A contiguous tensor of the device. Its version counts up now, as by any operation in place.
            values: A contiguous tensor of the same dtype and size; read now.
            stream: The current stream of device 0 where not given.

        Raises:
            ValueError: If the tensors do not fit each other, or are not contiguous.
        """
        on = self._on(stream)
        out, source, count = self._memory(tensor, values)
        self._edited(tensor)
        _testing.write(on.handle, on.device, out, source, count)

    def copy(self, tensor: torch.Tensor, source: torch.Tensor, stream: Stream | None = None) -> None:
        """Enqueues an operation that copies one tensor of the device to another. It reads `source` when it runs.

        Raises:
            ValueError: If the tensors do not fit each other, or are not contiguous.
        """
        on = self._on(stream)
        out, origin, count = self._memory(tensor, source)
        self._edited(tensor)
        self._keep(source)
        _testing.move(on.handle, on.device, out, origin, count)

    def upload(self, tensor: torch.Tensor, host: torch.Tensor, stream: Stream | None = None) -> None:
        """Enqueues an asynchronous copy from the host to a tensor of the device, as ``copy_(non_blocking=True)``.

        From pinned memory it reads when it runs, and nobody keeps the memory for it; from other memory it reads now.

        Raises:
            ValueError: If the tensors do not fit each other, or are not contiguous.
        """
        on = self._on(stream)
        out, origin, count = self._memory(tensor, host)
        self._edited(tensor)
        _testing.upload(on.handle, on.device, out, origin, count)

    def wait_stream(self, stream: Stream, other: Stream) -> None:
        """Lets a stream wait for what another holds now, as `torch.cuda.Stream.wait_stream` does."""
        _testing.wait(stream.handle, stream.device, other.handle, other.device)

    def delay(self, nanoseconds: int, stream: Stream | None = None) -> None:
        """Enqueues an operation that takes virtual time, and does nothing."""
        on = self._on(stream)
        _testing.delay(on.handle, on.device, nanoseconds)

    def spend(self, nanoseconds: int) -> None:
        """Lets virtual time pass for the calling thread, as its own work would."""
        _testing.spend(nanoseconds)

    def empty(self, count: int, dtype: torch.dtype, stream: Stream | None = None) -> torch.Tensor:
        """A flat tensor in memory of the device, from an allocator like torch's.

        What is freed goes at once to the next who asks on that stream, though enqueued operations may still use it.

        Args:
            count: Its number of elements.
            dtype: Their type.
            stream: Whose memory it is; the current stream of device 0 where not given.

        Raises:
            torch.OutOfMemoryError: If the device has no room for it; see `set_room`.
        """
        on = self._on(stream)
        if count == 0:
            return torch.empty(0, dtype=dtype)
        memory: torch.Tensor | None = _testing.allocate(on.handle, on.device, count * dtype.itemsize)
        if memory is None:
            raise torch.OutOfMemoryError(f"device {on.device} has no room for {count} elements of {dtype}")
        self._heap.add(memory.data_ptr())
        return memory.view(dtype)

    def set_room(self, nbytes: int, device: int = 0) -> None:
        """The most bytes of that device's memory that may be allocated at a time; without limit at the start."""
        _testing.set_room(device, nbytes)

    def place(self, tensor: torch.Tensor, device: int) -> None:
        """Says that the tensor's storage is memory of that device; of what nothing was said, it is device 0."""
        storage = tensor.untyped_storage()
        _testing.place(storage.data_ptr(), storage.nbytes(), device)

    def device_of(self, tensor: torch.Tensor) -> int:
        """The device whose memory the tensor's first element is."""
        return _testing.device_of(tensor.data_ptr())

    # ---- the schedule ----

    def step(self, most: int = 1) -> int:
        """Runs up to that many steps of operations that are ready. Says how many there were."""
        return _testing.step(most)

    def drain(self) -> None:
        """Runs everything.

        Raises:
            RuntimeError: If something can never run, because copies are held.
        """
        while self.step(1 << 20):
            pass
        left = self.report().pending
        if left:
            raise RuntimeError(f"{left} operations can never run: copies are held")
        self._kept.clear()

    @contextmanager
    def held_copies(self) -> Iterator[None]:
        """Within it no copy to the host lands. Who waits for one gets an error: a deadlock is a broken rule."""
        _testing.hold_copies(True)
        try:
            yield
        finally:
            _testing.hold_copies(False)

    # ---- failures ----

    def fail(self, entry: str, nth: int = 1, result: int = 999) -> None:
        """The `nth` call of an entry from now on, counted from 1, does nothing and returns that CUresult.

        What a failed destroy, unregister, release or pop leaves alive is no leak.

        Raises:
            ValueError: If the table has no such entry, or `nth` is 0.
        """
        _testing.fail(entry, nth, result, False)

    def fail_all_after(self, entry: str, nth: int = 1, result: int = 700) -> None:
        """From that call on the device is lost, as with CUDA's sticky errors.

        Every call that needs the device returns that CUresult, and nothing that is under way ever ends.
        """
        _testing.fail(entry, nth, result, True)

    # ---- what came of it ----

    @property
    def over(self) -> bool:
        """Whether the simulation has ended."""
        return self._final is not None

    def report(self) -> Report:
        """What has happened so far; after the simulation, what had happened at its end."""
        if self._final is not None:
            return self._final
        seen = _testing.report()
        copies = [Copy(*copy) for copy in seen["copies"]]
        memory = [DeviceMemory(*each) for each in seen["memory"]]
        return Report(**{**seen, "copies": copies, "memory": memory})

    def violations(self) -> list[str]:
        """The rules of CUDA that were broken, in order."""
        return _testing.violations()

    def leaks(self) -> list[str]:
        """What lives and should have been given back: streams, events, modules, registrations, contexts."""
        return _testing.leaks()

    def check(self) -> None:
        """Raises AssertionError with the broken rules and the leaks, if there are any."""
        found = [f"broken rule: {text}" for text in self.violations()] + [f"leak: {text}" for text in self.leaks()]
        if found:
            raise AssertionError("\n".join(found))

    # ---- inside ----

    def _on(self, stream: Stream | None) -> Stream:
        return self.current_stream() if stream is None else stream

    @staticmethod
    def _memory(tensor: torch.Tensor, source: torch.Tensor) -> tuple[int, int, int]:
        if tensor.dtype != source.dtype or tensor.numel() != source.numel():
            raise ValueError(
                f"{source.numel()} elements of {source.dtype} do not fit a tensor of {tensor.numel()} of {tensor.dtype}"
            )
        if not (tensor.is_contiguous() and source.is_contiguous()):
            raise ValueError("both tensors must be contiguous")
        return tensor.data_ptr(), source.data_ptr(), tensor.numel() * tensor.element_size()

    def _edited(self, tensor: torch.Tensor) -> None:
        if not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
        self._keep(tensor)

    def _keep(self, tensor: torch.Tensor) -> None:
        if tensor.untyped_storage().data_ptr() not in self._heap:
            self._kept.append(tensor.detach())


@contextmanager
def simulated(
    seed: int = 0,
    *,
    pace: Pace = "any",
    devices: int = 1,
    lazy: bool = False,
    compute_capability: tuple[int, int] = (9, 0),
    driver_version: int = 12080,
    free_bytes: int = 64 << 30,
    link_bytes_per_second: float = 50e9,
    memory_bytes_per_second: float = 2000e9,
    copy_ns: int = 1000,
    launch_ns: int = 1000,
    call_ns: int = 500,
    engine: bool = True,
    check: bool = True,
    chunk_bytes: int | None = None,
    device_bytes: int | None = None,
    pinned: bool = True,
    grow_ahead: bool = False,
) -> Iterator[Simulator]:
    """Within it, CPU tensors play those of a CUDA device, on a driver that is simulated.

    Virtual time is kept from the costs below; they are round figures for arithmetic, not measurements.

    Args:
        seed: Decides what runs when. One thread that makes the same calls sees the same schedule.
        pace: How much runs by itself at each call: ``"never"`` anything until somebody waits, ``"always"`` all that is
            ready, ``"trickle"`` now and then a step, ``"fits"`` much at once and then nothing, ``"timed"`` what is over
            in virtual time; ``"any"`` draws one of the first four from the seed.
        devices: How many devices there are.
        lazy: Whether the default streams are lazy; see `Simulator.stream`.
        compute_capability: Of every device.
        free_bytes: What ``cuMemGetInfo`` says is free on every device.
        driver_version: As ``cuDriverGetVersion`` gives it: 12080 is 12.8.
        link_bytes_per_second: Of a copy to the host. Each device makes one at a time.
        memory_bytes_per_second: Of what a kernel reads and writes.
        copy_ns: What a copy takes beside its bytes.
        launch_ns: What a kernel takes beside its bytes.
        call_ns: What each driver call takes of the calling thread.
        engine: Whether the capture engine runs on it. Without, only `Simulator.raw` leads to it.
        check: Whether broken rules and leaks are an error at the end.
        chunk_bytes: The engine's chunks, in bytes, a multiple of 64; its usual size where not given. Small ones wrap
            around soon.
        device_bytes: The most device memory that chunks take.
        pinned: Whether records may lie in pinned memory; ``False`` has all of them pass through staging memory.
        grow_ahead: Whether a thread pins more memory ahead of need, as without a simulation. It runs when it likes, so
            that one seed no longer gives one schedule.

    Raises:
        RuntimeError: If this build has no kernels to run.
        ValueError: If a simulation runs already, or a figure makes no sense.
        AssertionError: At the end, with the list of broken rules and leaks.
    """
    if engine and not _core.build_info()["cuda_architectures"]:
        raise RuntimeError(  # torch would copy for the engine, at once, whatever the schedule
            "this build of nntap has no CUDA kernels (NNTAP_CUDA=OFF, or a platform without NVRTC), so that there is "
            "nothing to simulate: use a wheel for Linux, or build with NNTAP_CUDA=ON"
        )
    _testing.start(
        seed=seed,
        pace=pace,
        devices=devices,
        lazy=lazy,
        capability=compute_capability,
        driver_version=driver_version,
        free_bytes=free_bytes,
        link_bytes_per_second=link_bytes_per_second,
        memory_bytes_per_second=memory_bytes_per_second,
        copy_ns=copy_ns,
        launch_ns=launch_ns,
        call_ns=call_ns,
    )
    sim = Simulator(lazy)
    usual = _testing.cuda_settings()
    try:
        _testing.set_cuda_settings(
            chunk_bytes=chunk_bytes or usual["chunk_bytes"],
            device_bytes=device_bytes or usual["device_bytes"],
            pinned=pinned,
            copy_threads=2,  # so that they may overtake each other
            grow_ahead=grow_ahead,
        )
        if engine:
            _testing.use(True)
        try:
            yield sim
        finally:
            if engine:
                _testing.use(False)
        if check:
            sim.check()
    finally:
        _testing.set_cuda_settings(**usual)
        sim._final = sim.report()
        _testing.stop()
