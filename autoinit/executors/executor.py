"""What every way of running jobs offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..judging.score import Curve
from ..judging.trials import Job, Outcome

OnRung = Callable[[Job, Curve], bool]
"""Asked at each rung of a job, in the coordinating process; False ends the job there."""


class Executor(Protocol):
    """Runs jobs.

    Attributes:
        name: "sequential", "processes", "stacked" (its training step replayed or not) or "captured".
        concurrency: jobs that run at a time.
        pauses: whether a job can go on with what an earlier one of its number has left paused.
        notes: what went wrong with running jobs in this way, in words.
    """

    name: str
    concurrency: int
    pauses: bool
    notes: list[str]

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order.

        A job is asked about at a rung only after every job before it has been asked there or has ended, so that what
        `on_rung` decides is the same for every executor and every concurrency.
        """

    def pace(self, steps: int) -> float:
        """Returns the training steps per second of all jobs together, measured on some steps each; 0 on failure."""

    def close(self) -> None:
        """Ends what the executor has started; it cannot run jobs any more."""
