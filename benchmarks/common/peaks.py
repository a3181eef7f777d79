"""The most memory of a device during some work, whatever the work itself does to the device's counter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch


class Peak:
    """The most bytes of tensors at a time.

    Attributes:
        bytes: so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._device = device

    def note(self) -> None:
        """Takes over what the device has counted."""
        self.bytes = max(self.bytes, torch.cuda.max_memory_allocated(self._device))


@contextlib.contextmanager
def watched(device: torch.device) -> Iterator[Peak]:
    """Yields the peak of the block; where the counter is started anew inside of it, what it showed before counts too.

    `select` starts it anew more than once, to know its own peak and one candidate's.
    """
    peak, start_anew = Peak(device), torch.cuda.reset_peak_memory_stats

    def noted(*args: Any, **kwargs: Any) -> None:
        peak.note()
        start_anew(*args, **kwargs)

    torch.cuda.synchronize(device)
    start_anew(device)
    try:
        with mock.patch.object(torch.cuda, "reset_peak_memory_stats", noted):
            yield peak
    finally:
        torch.cuda.synchronize(device)
        peak.note()


def peak_beyond(device: torch.device, work: Callable[[], object]) -> int | None:
    """Returns the most bytes that some work held beyond what was held before; None on a device that does not count."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    with watched(device) as peak:
        work()
    return peak.bytes - before
