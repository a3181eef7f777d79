"""Short trainings in lockstep: what `probe` does for one set of weights, for every one of a stack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..judging.budget import Tally
from ..judging.screening import veto
from ..judging.trials import Job, Outcome
from ..probing.bench import cost
from ..probing.probe import HeldBack
from ..probing.recorder import Recorder
from ..task.machine import runs_ahead
from ..task.snapshot import seed_generators
from ..task.task import Task
from .stack import Stack


@dataclass
class Lane:
    """One candidate's training in a stack, so far.

    Attributes:
        job: what is run.
        tally: what it has cost besides its steps and evaluations.
        going: whether it trains on; whoever is asked at a rung may end it.
        ended: whether its curve is final.
        veto: why it was ended before its first step.
        problem: what went wrong where it has no curve.
        recorder: of its curve.
    """

    job: Job
    tally: Tally
    going: bool = True
    ended: bool = False
    veto: str = ""
    problem: str = ""
    recorder: Recorder = field(default_factory=Recorder)

    def outcome(self, task: Task, held_back: HeldBack) -> Outcome:
        """Returns what came of the job, evaluated on these batches."""
        if self.problem:
            self.tally.spend(steps=1)
            return Outcome(None, self.tally.steps, self.problem)
        curve = self.recorder.curve()
        self.tally.spend(**cost(task, curve, held_back))
        return Outcome(curve, self.tally.steps, self.veto)

    def look(self, norms: Sequence[float]) -> None:
        """Takes note of the first gradients, and ends where they are hopeless."""
        seen = self.recorder.look(norms)
        if seen is not None and self.job.reference is not None:
            self.veto = veto(seen, self.job.reference)
            self.going = not self.veto


def lockstep(task: Task, stack: Stack, lanes: Sequence[Lane], held_back: HeldBack) -> Iterator[list[Lane]]:
    """Trains a stack; yields at each rung the lanes to ask about, and goes on with those still going after it.

    Seeds the global generators, as `probe` does. Whatever else draws from them between two rungs has to put them
    back.

    Args:
        task: what to train and how.
        stack: of weights, one for each lane, in their order; started.
        lanes: their jobs have the same seed, steps and rungs.
        held_back: batches whose mean loss is taken at each rung and at the end.
    """
    job = lanes[0].job
    seed_generators(job.seed, task.device)
    if not task.model.training:
        task.model.train()
    for lane in lanes:
        lane.recorder.go_on(job.steps, job.rungs)
    running, unread, ahead = list(lanes), list[Tensor](), runs_ahead(task.device)
    mark = time.perf_counter()
    for batch in task.order(job.seed, job.steps):
        unread.append(stack.backward(batch))
        for lane in running:
            lane.recorder.pass_by()
        if not ahead or running[0].recorder.loss_due:
            _read(unread, running)
        _measure(stack, running)
        stack.step()
        running = _dropped(stack, running)
        if running and running[0].recorder.stops_here:
            _evaluate(stack, running, held_back)
            mark = _share(running, mark)
            yield [lane for lane in running if lane.going]
            mark = time.perf_counter()
            running = _dropped(stack, running)
        if not running:
            return
    for lane in running:
        lane.ended = True


def _read(unread: list[Tensor], running: Sequence[Lane]) -> None:
    """Reads the losses of each step since it was last done; one that is not finite leaves the others as they are."""
    steps = torch.stack(unread).T.tolist()
    unread.clear()
    for lane, losses in zip(running, steps, strict=True):
        lane.going = lane.recorder.read(losses)


def _measure(stack: Stack, running: Sequence[Lane]) -> None:
    """Takes the glance and the range of gradients where they are due, which is at the same step for all."""
    recorder = running[0].recorder
    glance_due, range_due = recorder.glance is None, recorder.range_due
    if not (glance_due or range_due):
        return
    for lane, norms in zip(running, stack.gradient_norms(), strict=True):
        if glance_due and lane.going:
            lane.look(norms)
        if range_due and lane.going:
            lane.recorder.take_range(norms)


def _evaluate(stack: Stack, running: Sequence[Lane], held_back: HeldBack) -> None:
    if batches := held_back(running[0].recorder.steps):
        for lane, losses in zip(running, stack.evaluate(batches), strict=True):
            lane.going = lane.recorder.evaluate(losses, batches)


def _share(running: Sequence[Lane], since: float) -> float:
    """Gives each lane its share of the time since then; returns the time now."""
    now = time.perf_counter()
    for lane in running:
        lane.recorder.seconds += (now - since) / len(running)
    return now


def _dropped(stack: Stack, running: list[Lane]) -> list[Lane]:
    """Returns the lanes that go on, after taking the others out of the stack."""
    places = [place for place, lane in enumerate(running) if lane.going]
    if len(places) == len(running):
        return running
    for lane in running:
        lane.ended = not lane.going
    if places:
        stack.keep(places)
    return [running[place] for place in places]
