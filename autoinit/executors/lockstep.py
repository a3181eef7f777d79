"""Short trainings in lockstep: what `probe` does for one set of weights, for every one of a stack."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..judging.budget import Tally
from ..judging.score import RANGE_STEP, Curve, Glance
from ..judging.screening import veto
from ..judging.trials import Job, Outcome
from ..probing.bench import cost
from ..probing.probe import HeldBack, log_range, mean_per_row
from ..task.batches import Batch
from ..task.snapshot import seed_generators
from ..task.task import Task
from .stack import Stack


@dataclass
class Run:
    """One candidate's training so far.

    Attributes:
        job: what is run.
        tally: what it has cost besides its steps and evaluations.
        going: whether it trains on; whoever is asked at a rung may end it.
        ended: whether its curve is final.
        veto: why it was ended before its first step.
        problem: what went wrong where it has no curve.
    """

    job: Job
    tally: Tally
    going: bool = True
    ended: bool = False
    veto: str = ""
    problem: str = ""
    losses: list[float] = field(default_factory=list)
    held_back: list[tuple[int, float]] = field(default_factory=list)
    by_batch: list[float] = field(default_factory=list)
    gradient_range: float | None = None
    glance: Glance | None = None
    diverged_at: int | None = None
    seconds: float = 0.0

    def curve(self) -> Curve:
        """Returns what was seen so far."""
        return Curve(
            tuple(self.losses),
            tuple(self.held_back),
            self.gradient_range,
            self.diverged_at,
            self.seconds,
            tuple(self.by_batch),
            self.glance,
        )

    def outcome(self, held_back: HeldBack) -> Outcome:
        """Returns what came of the job, evaluated on these batches."""
        if self.problem:
            self.tally.spend(steps=1)
            return Outcome(None, self.tally.steps, self.problem)
        curve = self.curve()
        self.tally.spend(**cost(curve, held_back))
        return Outcome(curve, self.tally.steps, self.veto)

    def diverge(self, step: int) -> None:
        """Ends at a loss that is not finite."""
        self.diverged_at, self.going = step, False

    def look(self, norms: Sequence[float]) -> None:
        """Takes note of the first gradients, and ends where they are hopeless."""
        self.glance = Glance(self.losses[0], math.hypot(*norms), log_range(norms))
        if self.job.reference is not None:
            self.veto = veto(self.glance, self.job.reference)
            self.going = not self.veto


def lockstep(task: Task, stack: Stack, runs: Sequence[Run], held_back: HeldBack) -> Iterator[list[Run]]:
    """Trains a stack; yields at each rung the runs to ask about, and goes on with those still going after it.

    Seeds the global generators, as `probe` does. Whatever else draws from them between two rungs has to put them
    back.

    Args:
        task: what to train and how.
        stack: of weights, one for each run, in their order; started.
        runs: their jobs have the same seed, steps and rungs.
        held_back: batches whose mean loss is taken at each rung and at the end.
    """
    job = runs[0].job
    seed_generators(job.seed, task.device)
    if not task.model.training:
        task.model.train()
    stops = {*(rung for rung in job.rungs if rung < job.steps), job.steps}
    running = list(runs)
    mark = time.perf_counter()
    for step, batch in enumerate(task.order(job.seed, job.steps), start=1):
        _take(stack.backward(batch), running, step)
        _measure(stack, running, step, min(stops))
        stack.step()
        running = _dropped(stack, running)
        if running and step in stops:
            if batches := held_back(step):
                _evaluate(stack, running, batches, step)
            mark = _share(running, mark)
            yield [run for run in running if run.going]
            mark = time.perf_counter()
            running = _dropped(stack, running)
        if not running:
            return
    for run in running:
        run.ended = True


def _take(losses: Sequence[float], running: Sequence[Run], step: int) -> None:
    """Adds a step's losses; one that is not finite leaves the others as they are."""
    for run, loss in zip(running, losses, strict=True):
        run.losses.append(loss)
        if not math.isfinite(loss):
            run.diverge(step)


def _measure(stack: Stack, running: Sequence[Run], step: int, first_stop: int) -> None:
    """Takes the glance at the first step, and the range of gradients at its step or at an earlier first rung."""
    range_due = step == RANGE_STEP or step == first_stop < RANGE_STEP
    if step != 1 and not range_due:
        return
    for run, norms in zip(running, stack.gradient_norms(), strict=True):
        if step == 1 and run.going:
            run.look(norms)
        if range_due and run.going:
            run.gradient_range = log_range(norms)


def _evaluate(stack: Stack, running: Sequence[Run], held_back: Sequence[Batch], step: int) -> None:
    for run, losses in zip(running, stack.evaluate(held_back), strict=True):
        run.by_batch = losses
        run.held_back.append((step, mean_per_row(losses, held_back)))
        if not math.isfinite(run.held_back[-1][1]):
            run.diverge(step)


def _share(running: Sequence[Run], since: float) -> float:
    """Gives each run its share of the time since then; returns the time now."""
    now = time.perf_counter()
    for run in running:
        run.seconds += (now - since) / len(running)
    return now


def _dropped(stack: Stack, running: list[Run]) -> list[Run]:
    """Returns the runs that go on, after taking the others out of the stack."""
    places = [place for place, run in enumerate(running) if run.going]
    if len(places) == len(running):
        return running
    for run in running:
        run.ended = not run.going
    if places:
        stack.keep(places)
    return [running[place] for place in places]
