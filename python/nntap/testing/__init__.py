"""Testing without a GPU: a simulated CUDA driver on which CPU tensors play device tensors."""

from __future__ import annotations

from nntap.testing.report import Copy, DeviceMemory, Report
from nntap.testing.simulator import ENTRIES, Pace, Simulator, Stream, simulated

__all__ = ["ENTRIES", "Copy", "DeviceMemory", "Pace", "Report", "Simulator", "Stream", "simulated"]
