"""What this machine offers, put back afterwards: cores, torch's threads, a device's memory."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import joblib
import torch
from torch import Tensor

from ..errors import DeviceError, described

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
"""What says that there is no memory left, of a device or of the machine: nothing that the owner's code cannot take."""


def usable_cores() -> int:
    """Returns the cores that this process may use, by its affinity and by its container's share of time."""
    return int(joblib.cpu_count())


@contextlib.contextmanager
def answering_device() -> Iterator[None]:
    """Says of a device that no longer answers what to do; of a reason that was told before, that.

    After such an error every operation on the device fails, and so does whatever puts things back on the way out, each
    in the place of the error before.

    Raises:
        DeviceError: the device is lost to this process.
    """
    try:
        yield
    except torch.AcceleratorError as problem:
        known: BaseException | None = problem
        while known is not None and not isinstance(known, DeviceError):
            known = known.__cause__ or known.__context__
        if isinstance(known, DeviceError):
            raise DeviceError(str(known)) from problem
        raise DeviceError(
            f"the device no longer answers ({described(problem)}), and what lies on it is lost. Restart the process; "
            "with CUDA_LAUNCH_BLOCKING=1 in its environment torch says which operation it was."
        ) from problem


@dataclass(eq=False)
class PeakMemory:
    """The most bytes of tensors at a time; right at the end of its block, None on devices that do not count them."""

    bytes: int | None = None


SET_ASIDE = 1000
"""Objects beyond which somebody has called `gc.freeze`: Python 3.12 sets some four hundred aside as it starts."""

_WATCHED: list[PeakMemory] = []
"""Those whose blocks are open, on the one device that a search trains on."""


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Yields where the peak of the block will stand; at its end, cached blocks go back to the device.

    Blocks may stand inside of each other. The device has one counter, which each starts anew, so what it showed before
    is noted for those around.
    """
    peak = PeakMemory()
    counted = device.type == "cuda"
    if counted:
        _note(device)
        torch.cuda.reset_peak_memory_stats(device)
        _WATCHED.append(peak)
    try:
        yield peak
    finally:
        if counted:
            _note(device)
            _WATCHED.remove(peak)
        free_cache(device)


def _note(device: torch.device) -> None:
    """Tells all blocks that are open what the device's counter shows."""
    for peak in _WATCHED:
        peak.bytes = max(peak.bytes or 0, torch.cuda.max_memory_allocated(device))


def runs_ahead(device: torch.device) -> bool:
    """Whether a device computes while the program goes on, so that reading a number waits for all before it."""
    return device.type == "cuda"


@contextlib.contextmanager
def quick_collections(device: torch.device) -> Iterator[None]:
    """Lets collections of garbage look at nothing that was there before, where many are made: of recorded steps.

    With the modules that a search loads there are half a million objects, and looking through them takes as long as a
    hundred training steps of a small model. Whoever has set objects aside themselves is left alone.
    """
    if device.type != "cuda" or gc.get_freeze_count() > SET_ASIDE:
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def ordered_sums() -> Iterator[None]:
    """Has cuDNN add in one order, so that the same training gives the same bits on the same GPU.

    The sums of its fastest kernels depend on which of their parts ends first.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes that the entries of some tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def numbers(scalars: Sequence[Tensor]) -> list[float]:
    """Returns the numbers in some tensors of one entry each, waiting for their device once."""
    if len(scalars) > 1 and runs_ahead(scalars[0].device):
        alike = len({scalar.dtype for scalar in scalars}) == 1  # as losses are: no kernel for each of them
        found: list[float] = torch.stack([s.reshape(()) if alike else s.reshape(()).double() for s in scalars]).tolist()
        return found
    return [scalar.item() for scalar in scalars]


def free_bytes(device: torch.device) -> int | None:
    """Returns the bytes that tensors can still take on a device, cached blocks included; None where it does not count.

    What other processes take meanwhile is not known before.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_cache(device: torch.device) -> None:
    """Gives memory that is only kept for reuse back to the device, for others to use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextlib.contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Lets torch compute with so many threads, and puts the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
