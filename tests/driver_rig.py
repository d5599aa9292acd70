"""The simulated driver's table, driven by hand: a context, and memory, streams and events made in it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nntap.testing import Simulator, simulated

SUCCESS, INVALID_VALUE, INVALID_HANDLE, INVALID_CONTEXT, NOT_READY, UNKNOWN = 0, 1, 400, 201, 600, 999
NON_BLOCKING, NO_TIMING, PORTABLE = 1, 2, 1


class Rig:
    """One device's context, current on this thread, and what is made in it: `close` gives all of it back."""

    def __init__(self, sim: Simulator, device: int = 0) -> None:
        self.sim = sim
        self.raw = sim.raw
        self.device = device
        self.streams: list[int] = []
        self.events: list[int] = []
        self.hosts: list[torch.Tensor] = []
        self.made: list[torch.Tensor] = []
        ok(self.raw.init(0))
        self.context = got(self.raw.primary_context_retain(device))
        ok(self.raw.context_push(self.context))

    def stream(self) -> int:
        self.streams.append(got(self.raw.stream_create(NON_BLOCKING)))
        return self.streams[-1]

    def event(self) -> int:
        self.events.append(got(self.raw.event_create(NO_TIMING)))
        return self.events[-1]

    def memory(self, *values: int) -> torch.Tensor:
        """Device memory."""
        self.made.append(torch.tensor(values, dtype=torch.uint8))
        self.sim.place(self.made[-1], self.device)
        return self.made[-1]

    def host(self, count: int) -> torch.Tensor:
        """Registered host memory, all zero."""
        tensor = torch.zeros(count, dtype=torch.uint8)
        ok(self.raw.host_register(tensor.data_ptr(), count, PORTABLE))
        self.hosts.append(tensor)
        return tensor

    def to_host(self, host: torch.Tensor, source: torch.Tensor, stream: int = 0) -> None:
        ok(self.raw.copy_to_host(host.data_ptr(), source.data_ptr(), source.numel(), stream))

    def record(self, stream: int = 0) -> int:
        """A new event, recorded."""
        event = self.event()
        ok(self.raw.event_record(event, stream))
        return event

    def wait(self, stream: int, event: int) -> None:
        ok(self.raw.stream_wait_event(stream, event, 0))

    def function(self, name: str = "nntap_spin") -> int:
        image = ctypes.create_string_buffer(b"any image")
        module = got(self.raw.module_load(ctypes.addressof(image)))
        return int(got(self.raw.module_function(module, name)))

    def spin(self, function: int, nanoseconds: int, stream: int = 0) -> int:
        value = ctypes.c_longlong(nanoseconds)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(value))
        return int(self.raw.launch(function, 1, 1, 1, 1, 1, 1, 0, stream, ctypes.addressof(parameters), 0))

    def close(self) -> None:
        self.sim.drain()
        for stream in self.streams:
            ok(self.raw.stream_destroy(stream))
        for event in self.events:
            ok(self.raw.event_destroy(event))
        for host in self.hosts:
            ok(self.raw.host_unregister(host.data_ptr()))
        ok(self.raw.context_pop()[0])
        ok(self.raw.primary_context_release(self.device))


def ok(result: int) -> None:
    assert result == SUCCESS


def got(pair: tuple[int, Any]) -> Any:
    ok(pair[0])
    return pair[1]


@contextmanager
def rig(seed: int = 0, **options: Any) -> Iterator[Rig]:
    """A rig in a simulation of its own, lazy where nothing else is said; leaks and broken rules are an error."""
    with simulated(seed, engine=False, **{"lazy": True, **options}) as sim:
        one = Rig(sim)
        yield one
        one.close()
