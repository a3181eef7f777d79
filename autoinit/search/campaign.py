"""One search's book-keeping: jobs go to an executor, trials come back, the budget is counted down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..errors import StepError
from ..executors.executor import Executor, OnRung
from ..executors.processes import WORKER_DIED
from ..judging.budget import Meter, Schedule
from ..judging.gate import USUAL_LENGTH
from ..judging.score import Curve, Reference, Score, score
from ..judging.trials import Candidate, Job, Outcome, Stage, State, Trial, ranking
from ..judging.worth import Worth
from ..probing.bench import Bench
from ..recipes.calibrations import steps_of
from ..recipes.names import title
from ..recipes.recipe import OWN, Recipe
from ..seeds import seed_of_use


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Where a search stands.

    Attributes:
        stage: what the last job was run for; "reading" and "timing" before the first.
        done: share of the whole budget that is spent, 0 to 1.
        message: the leader so far, in words.
    """

    stage: Stage | Literal["reading", "timing", "finishing"]
    done: float
    message: str


Progress = Callable[[ProgressEvent], None]

FORESEEABLE_LENGTH = 100.0
"""How many times as long as the gate's runs a training counts as at most: beyond, a trend of theirs says nothing."""

UNIT, SMALLEST_UNIT = 0.1, 0.001
"""Share of all values' spread that a unit of differences is at least when it is set, and may have become later."""

Decide = Callable[[Job, Curve], str]
"""Asked with a job's curve at each rung; what it returns is why the job ends there, empty to go on."""


@dataclass
class Campaign:
    """What all stages of one search share.

    Attributes:
        bench: the owner's model, on which the champion is drawn.
        executor: runs the jobs.
        meter: what may be spent, and what has been.
        schedule: how long each stage's runs are.
        progress: told after each job.
        trials: the finished jobs so far, in the order of their numbers; who goes on in rounds has one for all of them.
        reference: what losses are measured against; set by the first job, which is the owner's.
        training_steps: of the training that the weights are chosen for; None where nobody says.
        ended: why the search needed no more of the budget, in words; empty where it took its share.
        spares: whether the search ends where what is left to find is worth less than its cost.
        since: number of the first trial on this model, the owner's: those before were on a proxy.
        extent: the lowest and the highest finite value that trials since then have shown.
        settled: how often what losses are measured against has changed, because values became negative.
        left_over: what was left to find where it ended so; None where it did not.
        further: of the owner's weights beyond their trial, where they were looked at again; else None.
        alike: known recipes that are not tried, because another one gives the same weights → that one.
        how: how jobs are run, in words; empty where none is.
        alone: share of the pace of all jobs together that one of them has by itself; 0 where nobody has measured it.
        searched_elsewhere: whether the search before was on another model, a proxy: its ranking tells who to look at
            here, and no more.
    """

    bench: Bench
    executor: Executor
    meter: Meter
    schedule: Schedule
    progress: Progress = lambda event: None
    trials: list[Trial] = field(default_factory=list)
    reference: Reference | None = None
    training_steps: float | None = None
    ended: str = ""
    alike: dict[Recipe, Recipe] = field(default_factory=dict)
    how: str = ""
    alone: float = 0.0
    searched_elsewhere: bool = False
    spares: bool = True
    since: int = 0
    extent: tuple[float, float] = (math.inf, -math.inf)
    settled: int = 0
    left_over: Worth | None = None
    further: Curve | None = None

    def jobs(self, stage: Stage, entries: Sequence[tuple[Candidate, str]], steps: int, **rest: object) -> list[Job]:
        """Returns the next jobs, numbered.

        Args:
            stage: what they are run for.
            entries: each one's candidate and the name of its batch order.
            steps: of each.
            **rest: further fields of `Job`, the same for all.
        """
        first = len(self.trials)
        jobs = [
            Job(first + place, stage, candidate, seed_of_use(self.bench.seed, order), steps, **rest)  # type: ignore[arg-type]
            for place, (candidate, order) in enumerate(entries)
        ]
        # The owner's weights are carried along whatever they are: nothing vetoes them.
        return [dataclasses.replace(job, reference=None) if job.candidate.recipe == OWN else job for job in jobs]

    def run(
        self,
        jobs: Sequence[Job],
        decide: Decide = lambda job, curve: "",
        told: Callable[[Trial], None] = lambda trial: None,
    ) -> list[Trial]:
        """Returns the trial of each job, logged as soon as it is there.

        Args:
            jobs: from `jobs`, run at the executor's concurrency.
            decide: ends a job at a rung.
            told: called with each trial, once it is logged.

        Raises:
            StepError: a training that its owner wrote failed from the owner's weights, as it will from others.
            Exception: what `decide` raised, after the jobs were ended and logged.
        """
        ended: dict[int, str] = {}
        problems: list[Exception] = []

        def on_rung(job: Job, curve: Curve) -> bool:
            try:
                ended[job.number] = decide(job, curve) if not problems else "a decision failed"
            except Exception as problem:  # a storage's, say: not the candidate's, and the same for every executor
                problems.append(problem)
            return not problems and not ended[job.number]

        outcomes = self._outcomes(jobs, on_rung)
        numbers = []
        for job, out in zip(jobs, outcomes, strict=True):
            trial = self._log(job, out, ended.get(job.number, ""))
            numbers.append(trial.number)
            told(trial)
            if why := self._hopeless(trial):
                problems.append(StepError(f"from the model's own weights, {why}"))
        if problems:
            raise problems[0]
        self._settle()
        return [self.trials[number] for number in numbers]

    def _settle(self) -> None:
        """Compares by differences from here on where a value has become negative, and scores anew what is there.

        Whether a metric stays positive is not known before (the likelihood of a density, a return that begins at 0).
        Asked when all jobs of a batch are logged, so that the answer is the same however many run at a time.
        """
        reference, (low, high) = self.reference, self.extent
        if reference is None or reference.guess or low > high:
            return
        settled = low >= 0 if reference.scale is None else reference.scale >= SMALLEST_UNIT * (high - low)
        own = self.trials[self.since].curve
        mine = [] if settled or own is None else [value for value in own.losses if math.isfinite(value)]
        if mine:
            self.reference = Reference.of_differences(mine, UNIT * (high - low))
            self.trials[self.since :] = [self._scored_anew(trial) for trial in self.trials[self.since :]]
            self.settled += 1

    def _scored_anew(self, trial: Trial) -> Trial:
        if trial.curve is None or trial.score is None or trial.score.diverged:
            return trial
        return dataclasses.replace(trial, score=self.score(trial.curve, trial.curve.steps))

    def _hopeless(self, trial: Trial) -> str:
        """Returns why a training that its owner wrote fails from the owner's own weights; empty where it does not."""
        own = self.bench.task.own is not None and trial.candidate.recipe == OWN and trial.stage == "search"
        if not own or trial.state != "failed" or trial.reason.startswith(WORKER_DIED):
            return ""
        return trial.reason.removeprefix(f"{StepError.__name__}: ")

    def _outcomes(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order; one that would cost more than the search has is not begun."""
        dear = self._too_dear(jobs)
        ran = iter(self.executor.run([job for job in jobs if job.number not in dear], on_rung))
        for job in jobs:
            yield Outcome(None, 0.0, dear[job.number]) if job.number in dear else next(ran)
        next(ran, None)  # nothing: it has cleaned up

    def _too_dear(self, jobs: Sequence[Job]) -> dict[int, str]:
        """Returns why jobs are not begun, in words, by their numbers."""
        share, found = self.schedule.search_until, dict[int, str]()
        left = self.meter.left(share)
        for job in jobs:
            cost = steps_of(job.candidate.recipe.calibration)
            begun = job.number < len(self.trials)  # and its trial must not be lost
            if job.stage == "search" and not begun and cost > max(0.0, left):
                found[job.number] = (
                    f"its calibration takes about {cost} training steps, more than the {max(0.0, left):.0f} that the "
                    f"search has left; leave it out, or give {100 * math.ceil(1.2 * cost / share / 100):,} steps"
                )
            else:
                left -= cost
        return found

    def run_first(self, jobs: Sequence[Job], decide: Decide = lambda job, curve: "") -> list[Trial]:
        """Returns the trials of a search's first jobs; they are run again where a worker died of the owner's.

        It comes first, and the whole search hangs on it.
        """
        trials = self.run(jobs, decide)
        if trials[0].reason.startswith(WORKER_DIED):
            self.trials.clear()
            trials = self.run(jobs, decide)
        return trials

    def say(self, stage: Literal["finishing"], message: str) -> None:
        """Tells who watches that something else than a job goes on."""
        self.progress(ProgressEvent(stage, self.meter.done(), message))

    def left(self, until: float, jobs: int, *, places: int | None = None, after: float = 0.0) -> float:
        """Returns the steps left until a share of the budget is spent, where only so many jobs run at a time.

        By the clock, fewer jobs than the executor can run get fewer steps done, though no fewer than one by itself.

        Args:
            until: the share.
            jobs: at a time.
            places: jobs in all, where they are few and long; None where they are such as those so far.
            after: steps that are taken before, by jobs like those so far.
        """
        clocked = self.meter.budget.seconds is not None or self.meter.hurried
        share = min(1.0, max(self.alone, jobs / self.executor.concurrency)) if clocked else 1.0
        return self.meter.left(until, after=after, places=places) * share

    def left_for_pairs(self, pairs: int, *, after: float = 0.0) -> float:
        """Returns the steps left for so many pairs of the gate: worker processes run all at once, a stack one by one.

        Args:
            pairs: of runs on the same batches.
            after: steps that are taken before, by jobs like those so far.
        """
        together = 2 if self.executor.name == "stacked" else 2 * pairs
        return self.left(1.0, together, places=2 * pairs, after=after)

    def score(self, curve: Curve, planned: int) -> Score:
        """Returns the score of a curve, also of an unfinished one."""
        return score(curve, self.reference or Reference.of(self.bench.task.reference, curve.losses), planned)

    def run_on(self, jobs: Sequence[Job]) -> list[Trial]:
        """Returns the trials of jobs that go on with earlier ones, in whose place they stand; all or none of them do.

        The owner's are run again where a worker died of them.
        """
        before = list(self.trials)
        try:
            trials = self.run(jobs)
            for place, trial in enumerate(trials):
                if trial.candidate.recipe == OWN and trial.reason.startswith(WORKER_DIED):
                    trials[place] = self.run([jobs[place]])[0]
        except BaseException:  # a part of a round compares with nothing
            pairs = zip(before, self.trials, strict=True)
            self.trials[:] = [dataclasses.replace(then, spent=now.spent) for then, now in pairs]
            raise
        return trials

    def length_after(self, steps: int) -> float:
        """Returns how many times as long as runs of so many steps the training will be, as far as one can foresee."""
        if self.training_steps is None:
            return USUAL_LENGTH
        return min(FORESEEABLE_LENGTH, max(1.0, self.training_steps / steps))

    def drop(self, trial: Trial, reason: str) -> None:
        """Notes why a candidate goes no further than this trial."""
        self.trials[trial.number] = dataclasses.replace(self.trials[trial.number], reason=reason)

    def prune(self, trial: Trial, reason: str) -> None:
        """Notes that a run that was complete was left behind by others, which go on."""
        self.trials[trial.number] = dataclasses.replace(self.trials[trial.number], state="pruned", reason=reason)

    def _log(self, job: Job, outcome: Outcome, ended: str) -> Trial:
        self.meter.spend(steps=outcome.spent)
        state, reason = _state(outcome, ended)
        scored = self.score(outcome.curve, job.steps) if outcome.curve is not None and state != "vetoed" else None
        before = self.trials[job.number].spent if job.number < len(self.trials) else 0.0
        spent = before + outcome.spent
        trial = Trial(job.number, job.stage, job.candidate, job.seed, outcome.curve, scored, state, reason, spent)
        self.trials[job.number : job.number + 1] = [trial]
        if outcome.curve is not None:
            seen = _values(outcome.curve)
            self.extent = min([self.extent[0], *seen]), max([self.extent[1], *seen])
        if self.reference is None and outcome.curve is not None:
            self.reference = Reference.of(self.bench.task.reference, outcome.curve.losses)
        leaders = ranking(self.trials)
        runs = f"{len(self.trials)} {'run' if len(self.trials) == 1 else 'runs'}"
        leader = f"{runs}, leading: {title(leaders[0].candidate.recipe)}" if leaders else ""
        self.progress(ProgressEvent(job.stage, self.meter.done(), leader))
        return trial


def _values(curve: Curve) -> list[float]:
    """Returns all that a training has shown as far as it is finite."""
    return [value for value in (*curve.losses, *(mean for _, mean in curve.held_back)) if math.isfinite(value)]


def _state(outcome: Outcome, ended: str) -> tuple[State, str]:
    curve = outcome.curve
    if curve is None:
        return "failed", outcome.reason
    if outcome.reason:
        return "vetoed", outcome.reason
    if curve.diverged_at is not None:
        whose = "loss" if not all(map(math.isfinite, curve.losses)) else "held-back loss"
        return "diverged", f"the {whose} was not finite at step {curve.diverged_at}"
    return ("pruned", ended) if ended else ("complete", "")
