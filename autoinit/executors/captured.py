"""Jobs one after the other in this process, their training steps replayed as CUDA graphs."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator, Sequence

from ..errors import DeviceError, described
from ..judging.trials import Job, Outcome
from ..probing.bench import Bench, steps_per_second
from ..probing.stepping import Eager, MakeStepper
from ..task.machine import free_cache
from ..task.snapshot import preserved_random
from .capturable import why_not
from .capture import Capture, CudaCapture, in_words
from .executor import OnRung
from .recorded import Recording

__all__ = ["Captured", "why_not"]


class Captured:
    """Runs one job after the other on one bench, with a training step that is recorded before the first.

    Only for models of which `why_not` has nothing to say. Results agree with those of plain steps up to rounding. As
    long as it is open, the device holds the activations of one step, and a second state of the optimizer.

    Attributes:
        pauses: it does not: the optimizer's state lies in one place for all.
        notes: why steps are not replayed after all, in words.

    Args:
        bench: of the model; its snapshot is rewound to.
        capture: records on the task's device; None for CUDA graphs.
    """

    name = "captured"
    concurrency = 1
    pauses = False

    def __init__(self, bench: Bench, capture: Capture | None = None) -> None:
        self.notes: list[str] = []
        self._bench = bench
        self._capture = capture
        self._stepper: MakeStepper | None = None

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order."""
        for job in jobs:
            yield self._bench.perform(job, functools.partial(on_rung, job), self._recorded())

    def pace(self, steps: int) -> float:
        """Returns the training steps per second, after one that warms up; 0 where steps cannot be replayed."""
        stepper = self._recorded()
        if stepper is Eager:
            return 0.0
        try:
            return steps_per_second(self._bench, steps, stepper)
        except Exception as problem:
            self.notes.append(f"replays failed ({described(problem)})")
            self._bench.snapshot.rewind()
            return 0.0

    def close(self) -> None:
        """Gives the memory of the recorded step back."""
        self._stepper = None
        gc.collect()
        free_cache(self._bench.task.device)

    def _recorded(self) -> MakeStepper:
        """Returns what replays steps, recorded at the first time; plain steps where that fails."""
        if self._stepper is None:
            with preserved_random(), self._bench.aside.counted():
                self._stepper = self._record()
            self._bench.snapshot.rewind()
        return self._stepper

    def _record(self) -> MakeStepper:
        """Records the owner's weights' step.

        Raises:
            DeviceError: that has left the device unusable.
        """
        task = self._bench.task
        self._bench.snapshot.rewind()
        capture = self._capture or CudaCapture(task.device)
        try:
            return Recording(task, capture).stepper
        except DeviceError:
            raise
        except Exception as problem:
            self.notes.append(f"no step could be recorded ({in_words(problem)}): plain ones from there")
        capture.recover()
        return Eager
