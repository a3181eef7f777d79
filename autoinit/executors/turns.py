"""The order in which jobs that run at the same time are asked about at their rungs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..judging.score import Curve
from ..judging.trials import Job, Outcome
from .executor import OnRung


class Turns:
    """The questions and outcomes of one batch of jobs, each in its turn.

    A job is asked about at a rung only once every job before it has been asked there or has ended. Each worker starts
    jobs in their order, so the first one that has not ended is never kept waiting, and the others follow.

    Args:
        jobs: in their order; a job is named by its place among them.
        on_rung: what is asked.
    """

    def __init__(self, jobs: Sequence[Job], on_rung: OnRung) -> None:
        self.jobs = jobs
        self._on_rung = on_rung
        self._asked = [0.0] * len(jobs)  # up to which step; inf where no further question can come
        self._seen = [0] * len(jobs)
        self._waiting: dict[int, Curve] = {}
        self._outcomes: dict[int, Outcome] = {}

    def ask(self, place: int, curve: Curve) -> None:
        """Takes note of a question: a job has reached a rung."""
        self._waiting[place] = curve
        self._seen[place] = curve.steps

    def end(self, place: int, outcome: Outcome) -> None:
        """Takes note of what came of a job. One that ended without a curve is not asked about any more."""
        self._outcomes[place] = outcome
        if outcome.curve is None:
            self._waiting.pop(place, None)

    def answers(self) -> Iterator[tuple[int, bool]]:
        """Yields (place, whether it goes on) of each job whose turn has come, but for those at their last step.

        A job at its last step has nothing to wait for: it ends either way.
        """
        reached = math.inf  # steps at which every job before has been asked
        for place, job in enumerate(self.jobs):
            curve = self._waiting.get(place)
            if curve is not None and curve.steps <= reached:
                del self._waiting[place]
                goes_on = self._on_rung(job, curve)
                last = at_last_step(job, curve)
                self._asked[place] = curve.steps if goes_on and not last else math.inf
                if not last:
                    yield place, goes_on
            if self.outcome(place) is not None:
                self._asked[place] = math.inf
            reached = min(reached, self._asked[place])

    def outcome(self, place: int) -> Outcome | None:
        """Returns what came of a job that has been asked all its questions; None before that."""
        return None if place in self._waiting else self._outcomes.get(place)

    def seen(self, place: int) -> int:
        """Returns the steps that a job is known to have done."""
        return self._seen[place]


def at_last_step(job: Job, curve: Curve) -> bool:
    """Whether a job's curve is whole."""
    return curve.steps >= job.steps
