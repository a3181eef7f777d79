"""Jobs one after the other, in this process."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ..judging.trials import Job, Outcome
from ..probing.bench import Bench, steps_per_second
from .executor import OnRung


class Sequential:
    """Runs one job after the other on one bench."""

    name = "sequential"
    concurrency = 1
    pauses = True

    def __init__(self, bench: Bench) -> None:
        self.notes: list[str] = []
        self._bench = bench

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order."""
        for job in jobs:
            yield self._bench.perform(job, functools.partial(on_rung, job))

    def pace(self, steps: int) -> float:
        """Returns the training steps per second, after one that warms up."""
        return steps_per_second(self._bench, steps)

    def close(self) -> None:
        """Has nothing to end."""
