"""What a device's memory holds at most, and giving back what is only kept for reuse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass
class PeakMemory:
    """The most bytes of tensors at a time; None while it is being watched, and on devices that do not count them."""

    bytes: int | None = None


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Yields where the peak of the block will stand; at its end, cached blocks go back to the device."""
    peak = PeakMemory()
    counted = device.type == "cuda"
    if counted:
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield peak
    finally:
        if counted:
            peak.bytes = torch.cuda.max_memory_allocated(device)
        free_cache(device)


def free_cache(device: torch.device) -> None:
    """Gives memory that is only kept for reuse back to the device, for others to use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
