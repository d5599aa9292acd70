"""What one cache's recording came to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stats:
    """Counts of one cache. Bytes are those of the records, in the dtype recorded."""

    records: int = 0
    """Tensors recorded by the core, shared ones included; ``slow`` counts the others."""
    bytes_recorded: int = 0
    """Bytes of those tensors."""
    bytes_moved: int = 0
    """Bytes that were copied; what the core's records hold in memory."""
    shared: int = 0
    """Tensors whose bytes an earlier record already held, so that nothing was copied."""
    bytes_shared: int = 0
    """Bytes of those."""
    slow: dict[str, int] = field(default_factory=dict)
    """Tensors that were recorded by torch operations instead, by reason."""
    stalls: int = 0
    """How often a hook waited for host memory."""
    stall_seconds: float = 0.0
    """How long, in seconds."""
    copy_seconds: float = 0.0
    """Time in copies of CPU tensors of 16 KiB and more, in seconds. Smaller ones are not timed, nor a GPU's copies."""
    gb_per_s: float | None = None
    """Bytes written a second by those copies, in 10^9 bytes, or None where there was none."""

    @classmethod
    def from_core(cls, raw: dict[str, object]) -> Stats:
        """From the dictionary of ``_core.Recorder.stats()``."""
        counts = {key: value for key, value in raw.items() if isinstance(value, int)}
        slow = raw["slow"]
        assert isinstance(slow, dict)
        copy_ns, timed = counts["copy_ns"], counts["timed_bytes"]
        return cls(
            records=counts["records"],
            bytes_recorded=counts["bytes_recorded"],
            bytes_moved=counts["bytes_moved"],
            shared=counts["shared"],
            bytes_shared=counts["bytes_shared"],
            slow=dict(slow),
            stalls=counts["stalls"],
            stall_seconds=counts["stall_ns"] / 1e9,
            copy_seconds=copy_ns / 1e9,
            gb_per_s=timed / copy_ns if copy_ns else None,
        )
