"""Several jobs at a time in this process, on one device: their weights are stacked and trained in lockstep."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from ..errors import DeviceError, described
from ..judging.budget import Tally
from ..judging.score import Curve
from ..judging.trials import Job, Outcome
from ..probing.bench import Bench
from ..probing.probe import RungReport
from ..recipes.space import LR_RATIO
from ..stacks.elementwise import mixes_rates
from ..stacks.lockstep import Lane, lockstep
from ..stacks.stack import Stack, moving_buffers
from ..stacks.stackable import why_not
from ..task.machine import free_cache
from ..task.snapshot import RandomStates, preserved_random
from .executor import OnRung

__all__ = ["Stacked", "why_not"]

Ask = Callable[[Job, Curve], bool]
"""Asks about a job at a rung, once."""


class Stacked:
    """Runs up to `concurrency` jobs at a time as a stack of weights.

    Only for models of which `why_not` has nothing to say. Results agree with those of jobs one after the other up to
    rounding. What fails in a stack is run again in smaller ones, or one by one.

    Attributes:
        pauses: it does not: a stack trains from the start.
        concurrency: jobs at a time; halved when memory runs out, 1 when a stack fails otherwise.
        notes: why it was lowered, in words.
    """

    name = "stacked"
    pauses = False

    def __init__(self, bench: Bench, concurrency: int) -> None:
        self.concurrency = concurrency
        self.notes: list[str] = []
        self._bench = bench
        self._mixes = mixes_rates(bench.task)
        self._moved: frozenset[str] | None = None

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order.

        A job that is run again is not asked again at a rung where it was asked before.
        """
        done: dict[int, Outcome] = {}
        ask = _remembered(on_rung)
        left, given = list(jobs), 0
        while left:
            self._attempt(self._together(left), ask, done)
            left = [job for job in left if job.number not in done]
            while given < len(jobs) and jobs[given].number in done:
                yield done.pop(jobs[given].number)
                given += 1

    def pace(self, steps: int) -> float:
        """Returns the training steps per second of a full stack together, after one that warms up; 0 on failure."""
        while self.concurrency > 1:
            try:
                return self._paced(steps)
            except Exception as problem:
                self._lower(problem)
            finally:
                self._bench.snapshot.rewind()
            self._free()
        return 0.0

    def close(self) -> None:
        """Gives the device's cached memory back."""
        self._free()

    def _together(self, jobs: Sequence[Job]) -> list[Job]:
        """Returns the next jobs to run at a time: they have the same rungs, and so come to each together."""
        first = jobs[0]
        alike = 0
        for job in jobs[: self.concurrency]:
            if (job.steps, job.rungs) != (first.steps, first.rungs):
                break
            alike += 1
        return list(jobs[:alike])

    def _attempt(self, jobs: Sequence[Job], ask: Ask, done: dict[int, Outcome]) -> None:
        """Adds the outcomes of jobs; where a stack fails, of those that had ended, and lowers the concurrency."""
        if self._runs_alone(jobs):
            done[jobs[0].number] = self._performed(jobs[0], ask)
            return
        try:
            with preserved_random():
                self._run_stacks(jobs, ask, done)
            return
        except DeviceError:
            raise
        except Exception as problem:
            self._lower(problem)
        finally:
            self._bench.snapshot.rewind()
        self._free()  # here, where the failure and all that it held is gone

    def _runs_alone(self, jobs: Sequence[Job]) -> bool:
        """Whether jobs are one, which trains as it would without a stack."""
        return len(jobs) == 1

    def _performed(self, job: Job, ask: Ask) -> Outcome:
        """Returns what came of a job that runs alone."""
        return self._bench.perform(job, _of(job, ask))

    def _run_stacks(self, jobs: Sequence[Job], ask: Ask, done: dict[int, Outcome]) -> None:
        """Trains jobs from rung to rung, a stack for each batch order, and asks about them in their order."""
        trainings = [_Training(self._bench, self._placed(group)) for group in self._groups(jobs)]
        while trainings:
            asked = [lane for training in trainings for lane in training.advance()]
            for lane in sorted(asked, key=lambda lane: lane.job.number):
                _decide(lane, ask)
            for training in trainings:
                training.collect(done)
            trainings = [training for training in trainings if training.lanes]

    def _groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Returns jobs in groups that a stack can hold: the same batches, and the same learning rate where it must."""
        groups: dict[tuple[int, bool, int], list[Job]] = {}
        for job in jobs:
            key = (job.seed, job.stage == "gate", 0 if self._mixes else job.candidate.lr_step)
            groups.setdefault(key, []).append(job)
        return list(groups.values())

    def _placed(self, jobs: Sequence[Job]) -> tuple[Stack, list[Lane]]:
        """Returns jobs with a stack of the weights of those whose draw did not fail, in their order."""
        stack = self._stack(len(jobs))
        lanes = [Lane(job, Tally()) for job in jobs]
        for lane in lanes:
            try:
                self._bench.place(lane.job, lane.tally)
            except Exception as problem:
                if _out_of_memory(problem):
                    raise
                lane.problem, lane.going, lane.ended = described(problem), False, True
                self._bench.snapshot.rewind()
                continue
            stack.add()
        return stack, lanes

    def _stack(self, capacity: int) -> Stack:
        return Stack(self._bench.task, capacity, self._moving())

    def _moving(self) -> frozenset[str]:
        if self._moved is None:
            self._bench.snapshot.rewind()
            self._moved = moving_buffers(self._bench.task)
            self._bench.snapshot.rewind()
        return self._moved

    def _paced(self, steps: int) -> float:
        task = self._bench.task
        with preserved_random():
            stack = self._stack(self.concurrency)
            for _ in range(self.concurrency):
                stack.add()
            stack.start([1.0] * self.concurrency)
            task.model.train()
            times = []
            for batch in task.order(0, steps + 1):
                stack.backward(batch).tolist()  # waits until the device is done with all before
                times.append(time.perf_counter())
                stack.step()
            return steps * self.concurrency / max(times[-1] - times[0], 1e-9)

    def _lower(self, problem: Exception) -> None:
        before = self.concurrency
        self.concurrency = max(1, before // 2) if _out_of_memory(problem) else 1
        self.notes.append(f"{before} candidates at a time failed ({described(problem)}): {self.concurrency} from there")

    def _free(self) -> None:
        gc.collect()
        free_cache(self._bench.task.device)


class _Training:
    """A stack in training, with the random states that it goes on from after each rung.

    Attributes:
        lanes: those whose outcome was not collected yet.
    """

    def __init__(self, bench: Bench, placed: tuple[Stack, list[Lane]]) -> None:
        stack, self.lanes = placed
        started = [lane for lane in self.lanes if lane.going]
        self._task, self._held_back = bench.task, bench.held_back(self.lanes[0].job)
        self._rungs: Iterator[list[Lane]] = iter(())
        self._states = RandomStates()
        if started:
            stack.start([LR_RATIO**lane.job.candidate.lr_step for lane in started])
            self._rungs = lockstep(bench.task, stack, started, self._held_back)

    def advance(self) -> list[Lane]:
        """Trains to the next rung and returns the lanes to ask about there; none at the end."""
        self._states.restore()
        asked = next(self._rungs, [])
        self._states = RandomStates()
        return asked

    def collect(self, done: dict[int, Outcome]) -> None:
        """Adds the outcomes of the lanes that have ended."""
        for lane in self.lanes:
            if lane.ended:
                done[lane.job.number] = lane.outcome(self._task, self._held_back)
        self.lanes = [lane for lane in self.lanes if not lane.ended]


def _decide(lane: Lane, ask: Ask) -> None:
    """Asks whether a lane goes on; where that fails, the lane has."""
    try:
        lane.going = ask(lane.job, lane.recorder.curve())
    except Exception as problem:
        lane.problem, lane.going = described(problem), False


def _of(job: Job, ask: Ask) -> RungReport:
    return functools.partial(ask, job)


def _remembered(on_rung: OnRung) -> Ask:
    """Returns `on_rung` that is asked once for each job and rung."""
    answers: dict[tuple[int, int], bool] = {}

    def ask(job: Job, curve: Curve) -> bool:
        place = (job.number, curve.steps)
        if place not in answers:
            answers[place] = on_rung(job, curve)
        return answers[place]

    return ask


def _out_of_memory(problem: Exception) -> bool:
    """Whether memory ran out: on the CPU torch says so by a plain error of its allocator."""
    return isinstance(problem, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(problem)
