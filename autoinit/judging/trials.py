"""What is run, and what came of it: candidates, jobs, outcomes and trials, as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..plans.plan import Plan
from ..recipes.recipe import Recipe
from .score import Curve, Reference, Score

Stage = Literal["search", "final", "gate"]


State = Literal["complete", "pruned", "vetoed", "diverged", "failed"]
"""How a run ended: at its last step; at a rung; before its first step; at a loss that was not finite; by an error."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe at one place of the learning-rate grid."""

    recipe: Recipe
    lr_step: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """One training to run.

    Attributes:
        number: of its trial.
        stage: what it is run for.
        candidate: whose weights are drawn.
        seed: of the batch order.
        steps: of the whole training.
        rungs: steps at which it is evaluated, besides the end.
        plan: exact weights, in the place of a draw of the candidate's recipe.
        reference: what a loss is measured against where hopeless weights are vetoed; None vetoes nothing.
        pauses: whether the training is paused where it ends, under the job's number.
        goes_on: whether it goes on with what was paused under its number; where that is lost, it trains from the start.
    """

    number: int
    stage: Stage
    candidate: Candidate
    seed: int
    steps: int
    rungs: tuple[int, ...] = ()
    plan: Plan | None = None
    reference: Reference | None = None
    pauses: bool = False
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        curve: of the training; None where it failed before a curve was done.
        spent: training steps or their equivalents, calibrations and evaluations included.
        reason: why there is no curve, or why it was vetoed.
    """

    curve: Curve | None
    spent: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One finished run.

    Attributes:
        number: in the order of the search.
        stage: what it was run for.
        candidate: what was tried.
        seed: of the batch order.
        curve: of the training; None where it failed before a curve was done.
        score: None where it failed.
        state: how it ended.
        reason: why its candidate went no further; empty for one that did, or may yet.
        spent: what it cost, in training steps.
    """

    number: int
    stage: Stage
    candidate: Candidate
    seed: int
    curve: Curve | None
    score: Score | None
    state: State
    reason: str = ""
    spent: float = 0.0

    @property
    def total(self) -> float:
        """The score, infinite where the run failed: what candidates are sorted by."""
        return self.score.total if self.score is not None else math.inf


def ranking(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the search's fully probed trials, best first, each recipe at its best learning rate."""
    best: dict[Recipe, Trial] = {}
    for trial in trials:
        recipe = trial.candidate.recipe
        finished = trial.stage == "search" and trial.state == "complete"
        if finished and (recipe not in best or trial.total < best[recipe].total):
            best[recipe] = trial
    return sorted(best.values(), key=lambda trial: trial.total)
