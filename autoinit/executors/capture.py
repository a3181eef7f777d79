"""Work on a device recorded once and replayed, and what is said where that cannot be: CUDA graphs."""

from __future__ import annotations

import contextlib
import functools
import gc
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import torch

from ..errors import DeviceError, described

Made = TypeVar("Made")

REMEDY = 'Restart the process, and pass executor="sequential".'
"""What helps where a device is lost to this process."""

_WAITING = ("synchronizing CUDA operation", "stream is capturing")
"""What torch says of an operation that waits for the device, which a graph cannot hold."""

_SEEDING = "CUDAGeneratorImpl"
"""What torch names where the state of a generator is asked for."""

_OURS = (Path(torch.__file__).parent, Path(__file__).parent.parent)
"""Where files lie whose lines tell an owner nothing."""


class Unrecordable(Exception):  # no error: a finding, which ends in words
    """Says why a training step cannot be recorded."""


class Capture(Protocol):
    """Records work and replays it."""

    def rehearse(self, work: Callable[[], object], *, strict: bool) -> None:
        """Does the work as it will be recorded, so that all that is made lazily is made before.

        Args:
            work: to be recorded afterwards.
            strict: whether it may not wait for the device, as it may not while it is recorded.
        """

    def record(self, work: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """Returns tensors that the work makes, and what does it again and writes them anew, in place."""

    def recover(self) -> None:
        """Sees whether the device still computes after something went wrong.

        Raises:
            DeviceError: it does not.
        """


class CudaCapture:
    """Records CUDA graphs, which share one pool of memory.

    What a graph reads has to stay where it was: whoever records keeps hold of it.

    Args:
        device: that the work is done on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _side_stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def rehearse(self, work: Callable[[], object], *, strict: bool) -> None:
        """Does the work on the stream that it will be recorded on."""
        present = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(present)
        try:
            with torch.cuda.stream(self._stream), _never_waiting() if strict else contextlib.nullcontext():
                work()
        finally:
            present.wait_stream(self._stream)

    def record(self, work: Callable[[], Made]) -> tuple[Made, Callable[[], None]]:
        """Returns what the work makes, in the pool, and what replays it on the current stream."""
        gc.collect()  # what is freed while recording would be freed by a graph
        torch.clear_autocast_cache()  # a replay has to cast the weights that it finds
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"  # other threads of the process may go on using the device
        first: list[BaseException] = []
        try:
            # Where recording fails, torch leaves its own stream current: the outer block puts that right.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode=mode),
                _noting(first),
            ):
                made = work()
        except BaseException:
            self._close_pool()
            if first:
                raise first[0] from None  # the end of a recording that failed says only that it did
            raise
        finally:
            torch.clear_autocast_cache()
        return made, graph.replay

    def _close_pool(self) -> None:
        """Ends the pool's part in allocations and releases it, which torch leaves out where a recording's end fails.

        Else no cached memory would go back to the device in this process, not even where there is no other left, and
        what the recording held would stay with the process.
        """
        with contextlib.suppress(RuntimeError):  # it was ended
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            torch._C._cuda_releasePool(self._device.index, self._pool)

    def recover(self) -> None:
        """Waits for the device and draws a number, which a recording that was cut off may have broken.

        Releases of torch that leave the generator in the state of recording get a fresh one for it; whoever keeps the
        random states puts back where it stood.
        """
        try:
            torch.cuda.synchronize(self._device)
            try:
                self._draw()
            except RuntimeError:
                fresh = torch.Generator(self._device)
                torch.cuda.default_generators[self._device.index].graphsafe_set_state(fresh.graphsafe_get_state())
                self._draw()
        except RuntimeError as problem:
            raise lost(problem) from problem

    def _draw(self) -> None:
        torch.rand(1, device=self._device).item()


def lost(problem: BaseException) -> DeviceError:
    """Returns what is raised where a failed recording has left the device unusable for this process."""
    return DeviceError(
        f"the device no longer answers after a training step could not be recorded as a CUDA graph "
        f"({described(problem)}). {REMEDY}"
    )


def in_words(problem: BaseException) -> str:
    """Returns why something could not be recorded, with the owner's line where one is known."""
    if isinstance(problem, Unrecordable):
        return str(problem)
    if _SEEDING in str(problem):
        asked = f"the step reads or sets a state of random numbers{_place(problem.__traceback__)}"
        return f"{asked}, as checkpointing does where preserve_rng_state is True, and a graph has its own"
    if any(text in str(problem) for text in _WAITING):
        asked = "the step asks for a tensor's value (as .item(), .cpu() and an `if` on a tensor do)"
        return f"{asked}{_place(problem.__traceback__)}, which a graph cannot hold"
    return f"the step cannot be recorded ({described(problem)})"


def _place(trace: TracebackType | None) -> str:
    """Returns " at file:line" of the last line that is neither torch's nor ours; empty where there is none."""
    for frame in reversed(traceback.extract_tb(trace)):
        if not any(folder in Path(frame.filename).parents for folder in _OURS):
            return f" at {Path(frame.filename).name}:{frame.lineno}"
    return ""


@contextlib.contextmanager
def _noting(problems: list[BaseException]) -> Iterator[None]:
    """Adds what is raised inside to a list."""
    try:
        yield
    except BaseException as problem:
        problems.append(problem)
        raise


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream that is recorded on, one for each device: cuBLAS keeps memory for every stream it has met."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _never_waiting() -> Iterator[None]:
    """Has torch raise where an operation waits for the device.

    Libraries that ask whether a stream is being recorded, as transformers does of its causal masks, are told so: they
    leave out a wait of their own then, and would be refused here for what they do not do there.
    """
    before, asked = torch.cuda.get_sync_debug_mode(), torch.cuda.is_current_stream_capturing
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda.is_current_stream_capturing = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_current_stream_capturing = asked
        torch.cuda.set_sync_debug_mode(before)
