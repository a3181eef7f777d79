"""Several jobs at a time in this process, on one CUDA device: a stack whose training step is replayed as a graph."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DeviceError, described
from ..judging.trials import Job, Outcome
from ..probing.bench import Bench
from ..stacks.stack import Stack
from ..task.snapshot import preserved_random
from .capturable import refusal as single_refusal
from .capturable_stack import why_not
from .capture import Capture, CudaCapture, in_words
from .captured import Captured
from .executor import Executor
from .recorded_stack import RecordedStack, ReplayedStack
from .sequential import Sequential
from .stacked import Ask, Stacked

__all__ = ["CapturedStack", "why_not"]

QUICK = 0.004
"""Seconds of a replayed step below which it takes a stack of a quarter hardly less time: kernels as small as those are
over before they fill the device, and to record another size takes as long as a hundred of them."""


class CapturedStack(Stacked):
    """Runs up to `concurrency` jobs at a time as a stack whose training step is recorded before the first.

    Only for models that stack and of which `why_not` has nothing to say. A step is recorded for `concurrency`
    candidates, and for half as many, a quarter and so on when no more are left; for every other of these sizes alone
    where a step is so quick that the size makes little difference. As long as it is open, the device holds
    the places and the activations of them all. Where nothing can be recorded or replayed, stacks are plain from there;
    where these fail too, jobs run one after the other, each step replayed if that can be.

    Args:
        bench: of the model.
        concurrency: jobs at a time.
        capture: records on the task's device; None for CUDA graphs.
    """

    def __init__(self, bench: Bench, concurrency: int, capture: Capture | None = None) -> None:
        super().__init__(bench, concurrency)
        self._given = self._capture = capture
        self._recordings: dict[int, RecordedStack] = {}
        self._records = True
        self._alone: Executor | None = None
        self._fold = 2

    def pace(self, steps: int) -> float:
        """Returns the training steps per second of a full stack together; 0 where its step cannot be replayed."""
        try:
            found = super().pace(steps) if self._recorded(self.concurrency) else 0.0
        finally:
            self._bench.snapshot.rewind()
        if not self._recordings:
            return 0.0
        self._fold = 4 if self.concurrency < QUICK * found else 2
        return found

    def close(self) -> None:
        """Gives the memory of the recorded steps back."""
        self._recordings.clear()
        if self._alone is not None:
            self._alone.close()
        super().close()

    def _runs_alone(self, jobs: Sequence[Job]) -> bool:
        return super()._runs_alone(jobs) and self._recorded(1) is None

    def _performed(self, job: Job, ask: Ask) -> Outcome:
        if self.concurrency > 1:  # the only one of its kind: others will be stacked
            return super()._performed(job, ask)
        if self._alone is None:
            self._alone = self._one_by_one()
        return next(iter(self._alone.run([job], ask)))

    def _one_by_one(self) -> Executor:
        """Returns what runs jobs when no stack does."""
        task = self._bench.task
        why_not = single_refusal(task, self._given or CudaCapture(task.device))
        one = Sequential(self._bench) if why_not else Captured(self._bench, self._given)
        self.notes.append(f"not captured either: {why_not}" if why_not else "their steps are replayed")
        one.notes = self.notes
        return one

    def _stack(self, capacity: int) -> Stack:
        recorded = self._recorded(capacity)
        if recorded is None:
            return super()._stack(capacity)
        return ReplayedStack(self._bench.task, capacity, self._moving(), recorded, self._recorded)

    def _recorded(self, count: int) -> RecordedStack | None:
        """Returns the smallest recorded stack with so many places; None where there is none.

        Raises:
            DeviceError: to record it has left the device unusable.
        """
        size = self.concurrency
        while size // self._fold >= count:
            size //= self._fold
        if self._records and size not in self._recordings:
            self._record(size)
        return next((self._recordings[size] for size in sorted(self._recordings) if size >= count), None)

    def _record(self, size: int) -> None:
        """Records a stack; where that fails, nothing is recorded any more."""
        moving, task = self._moving(), self._bench.task
        self._capture = capture = self._capture or CudaCapture(task.device)
        try:
            with preserved_random(), self._bench.aside.counted():
                self._recordings[size] = RecordedStack(task, size, moving, capture)
            return
        except DeviceError:
            raise
        except Exception as problem:
            self._records = False
            self.notes.append(f"no step of {size} stacked could be recorded ({in_words(problem)})")
        capture.recover()

    def _lower(self, problem: Exception) -> None:
        """Goes on with plain stacks, before there are smaller ones."""
        if not self._recordings or self._capture is None:
            super()._lower(problem)
            return
        self._recordings.clear()
        self._records = False
        self.notes.append(f"replays of stacks failed ({described(problem)}): plain ones from there")
        self._capture.recover()
