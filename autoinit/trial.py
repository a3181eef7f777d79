"""Trials: draw a candidate's weights, probe them, score the curve. What goes wrong in a trial ends that trial only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .apply import Memory, apply_plan, realize
from .budget import Meter, Schedule
from .calibrations import Subject
from .graph import Graph
from .plan import Plan
from .probe import RungReport, probe
from .recipe import Recipe
from .rules import resolve
from .score import Curve, Reference, Score, score
from .snapshot import Snapshot
from .space import LR_RATIO
from .task import Task

State = Literal["complete", "pruned", "diverged", "failed"]
Stage = Literal["search", "final", "gate"]

OWN = Recipe()
"""The owner's own weights: candidate 0."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe at one place of the learning-rate grid."""

    recipe: Recipe
    lr_step: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One finished trial.

    Attributes:
        number: in the order of the search.
        stage: what it was run for.
        candidate: what was tried.
        seed: of the batch order.
        curve: of the probe; None where it failed before a curve began.
        score: None where it failed.
        state: how it ended.
        reason: why it ended so; empty for a complete one.
    """

    number: int
    stage: Stage
    candidate: Candidate
    seed: int
    curve: Curve | None
    score: Score | None
    state: State
    reason: str = ""

    @property
    def total(self) -> float:
        """The score, infinite where the trial failed: what candidates are sorted by."""
        return self.score.total if self.score is not None else math.inf


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Where a search stands.

    Attributes:
        stage: what the last trial was run for.
        done: share of the whole budget that is spent, 0 to 1.
        message: the leader so far, in words.
    """

    stage: Stage
    done: float
    message: str


Progress = Callable[[ProgressEvent], None]


def stream(seed: int, name: str) -> int:
    """Returns the seed of one named use, so that no two uses share their random numbers."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest(), "big")


@dataclass
class Bench:
    """Where candidates are tried: what all trials of one search share, and the log of those done.

    Attributes:
        task: what is trained.
        graph: its architecture.
        snapshot: the owner's weights, rewound to before each trial.
        meter: what may be spent, and what has been.
        schedule: how long each stage's runs are.
        seed: of the draws (the same for all candidates, so that they differ by what they are and not by luck)
            and of the batch orders.
        progress: told after each trial.
        records: the trials so far.
        reference: what losses are measured against; set by the first trial, which is the owner's.
        memory: of costly draws.
    """

    task: Task
    graph: Graph
    snapshot: Snapshot
    meter: Meter
    schedule: Schedule
    seed: int
    progress: Progress = lambda event: None
    records: list[Record] = field(default_factory=list)
    reference: Reference | None = None
    memory: Memory = field(default_factory=dict)

    def draw(self, recipe: Recipe) -> Plan:
        """Sets a candidate's weights, starting from the owner's; returns the plan that gives them again."""
        self.snapshot.rewind()
        plan = resolve(recipe, self.graph, self.seed)
        return realize(self._subject, plan, self.snapshot.rewind, self.memory)

    def set(self, plan: Plan) -> None:
        """Sets the very weights of a plan that `draw` returned."""
        self.snapshot.rewind()
        apply_plan(self.task.model, plan, self.memory)

    @property
    def _subject(self) -> Subject:
        return Subject(self.task, self.graph, seed=stream(self.seed, "calibration"), spend=self.meter.spend)

    def score(self, curve: Curve, planned: int) -> Score:
        """Returns the score of a curve, also of an unfinished one."""
        reference = self.reference or Reference.of(self.task.reference, curve.losses)
        return score(curve, reference, planned)

    def run(
        self,
        stage: Stage,
        candidate: Candidate,
        *,
        seed: int,
        steps: int,
        rungs: tuple[int, ...] = (),
        on_rung: RungReport = lambda curve: True,
    ) -> Record:
        """Returns the record of one trial and logs it; the model is left with the trained weights.

        Args:
            stage: what it is run for.
            candidate: what to try.
            seed: of the batch order.
            steps: of the whole probe.
            rungs: steps at which `on_rung` is asked.
            on_rung: False prunes the trial there.
        """
        curve: Curve | None = None
        reason = ""
        try:
            self.draw(candidate.recipe)
            curve = probe(
                self.task,
                steps=steps,
                seed=seed,
                lr_factor=LR_RATIO**candidate.lr_step,
                held_back=self.task.probe_eval,
                rungs=rungs,
                on_rung=on_rung,
            )
            self.charge(curve, len(self.task.probe_eval))
        except Exception as problem:  # out of memory, a shape that one draw cannot take, a user's own check
            self.snapshot.rewind()
            self.meter.spend(steps=1)
            reason = described(problem)
        return self._log(stage, candidate, seed, steps, curve, reason)

    def charge(self, curve: Curve, held_back: int) -> None:
        """Counts the cost of a probe: its steps, and its evaluations on so many held-back batches."""
        self.meter.spend(steps=curve.steps, forwards=len(curve.held_back) * held_back)

    def _log(
        self, stage: Stage, candidate: Candidate, seed: int, steps: int, curve: Curve | None, reason: str
    ) -> Record:
        state, why = _outcome(curve, steps, reason)
        scored = self.score(curve, steps) if curve is not None else None
        record = Record(len(self.records), stage, candidate, seed, curve, scored, state, why)
        self.records.append(record)
        if self.reference is None and curve is not None:
            self.reference = Reference.of(self.task.reference, curve.losses)
        self.announce(stage)
        return record

    def announce(self, stage: Stage) -> None:
        """Tells the progress callback where the search stands."""
        leaders = ranking(self.records)
        leader = f"{len(self.records)} trials, leading: {leaders[0].candidate.recipe}" if leaders else ""
        self.progress(ProgressEvent(stage, self.meter.done(), leader))


def _outcome(curve: Curve | None, steps: int, reason: str) -> tuple[State, str]:
    if curve is None:
        return "failed", reason
    if curve.diverged_at is not None:
        return "diverged", f"the loss was not finite at step {curve.diverged_at}"
    if curve.steps < steps:
        return "pruned", f"in the worse half at step {curve.steps}"
    return "complete", ""


def described(problem: Exception) -> str:
    """Returns an exception's kind and the first line of what it says."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0]}" if lines else type(problem).__name__


def ranking(records: list[Record]) -> list[Record]:
    """Returns the search's fully probed trials, best first, each recipe at its best learning rate."""
    best: dict[Recipe, Record] = {}
    for record in records:
        recipe = record.candidate.recipe
        finished = record.stage == "search" and record.state == "complete"
        if finished and (recipe not in best or record.total < best[recipe].total):
            best[recipe] = record
    return sorted(best.values(), key=lambda record: record.total)
