"""What a simulation comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Copy(NamedTuple):
    """A copy to the host, in virtual time."""

    bytes: int
    device: int
    begin_ns: int
    end_ns: int


class DeviceMemory(NamedTuple):
    """What is allocated on a device."""

    used: int
    """Bytes that are allocated."""
    peak: int
    """The most that were."""
    refused: int
    """How often there was no room for an allocation."""


@dataclass(frozen=True)
class Report:
    """What has happened in a simulation so far. Times are virtual."""

    host_ns: int
    """The time of the thread that started the simulation."""
    host_blocked_ns: int
    """How long that thread has waited in event_synchronize and stream_synchronize."""
    all_blocked_ns: int
    """How long all threads have waited there."""
    stream_ends: dict[tuple[int, int], int]
    """When each stream's work is over, by device and handle; handle 0 is the default stream."""
    copies: list[Copy]
    """The copies to the host, in the order in which they were enqueued."""
    launches: int
    """Kernels launched through the driver."""
    calls: dict[str, int]
    """Calls of each entry, failed ones included."""
    events: int
    """Events that live."""
    events_peak: int
    """The most events that lived at a time."""
    registered_bytes: int
    """Host memory that is registered."""
    registered_peak_bytes: int
    """The most that was registered at a time."""
    pending: int
    """Operations that have not run yet."""
    memory: list[DeviceMemory]
    """By device."""

    @property
    def bytes_copied(self) -> int:
        """The bytes of all copies to the host."""
        return sum(copy.bytes for copy in self.copies)
