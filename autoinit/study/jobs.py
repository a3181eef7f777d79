"""What a study runs: the trials of one task, numbered, and what a task is found to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .. import jsonfile
from ..errors import ArgumentError
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import Space
from .spec import Study

StudyStage = Literal["probe", "long"]

LAYERS = "layers"
"""What the storage keeps of a task last; where it is there, if only as None, nothing of the task is left to do."""


@dataclass(frozen=True, slots=True)
class StudyJob:
    """One trial to run.

    Attributes:
        task: its name in the study.
        number: of the trial in its task.
        stage: a probe, or a long training of one of the best.
        recipe: whose weights are drawn.
        seed: of the owner's weights, the draw and the batch order.
        lr_step: place on the learning-rate grid.
        steps: of the training.
        rungs: steps at which it is evaluated besides the end.
    """

    task: str
    number: int
    stage: StudyStage
    recipe: Recipe
    seed: int
    lr_step: int
    steps: int
    rungs: tuple[int, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Returns it ready for JSON; the recipe as its fields that are not at their default."""
        return {
            "task": self.task,
            "number": self.number,
            "stage": self.stage,
            "recipe": jsonfile.parse(self.recipe.to_json(), ArgumentError, "The recipe"),
            "seed": self.seed,
            "lr_step": self.lr_step,
            "steps": self.steps,
            "rungs": list(self.rungs),
        }

    @staticmethod
    def from_data(data: dict[str, Any]) -> StudyJob:
        """Returns the job that `to_data` wrote."""
        return StudyJob(**{**data, "recipe": Recipe.from_data(data["recipe"]), "rungs": tuple(data["rungs"])})


@dataclass(frozen=True, slots=True)
class Described:
    """What a task was found to be when it was built.

    Attributes:
        fingerprint: of architecture, data, loss and optimizer; equal where two studies run the same task.
        features: numbers and words that describe it.
        candidates: as-is first.
        space: what a search may choose from.
        left_out: recipes of the study that do not fit the architecture or give what another one gives, and why.
        lr: the optimizer's own learning rate; None where there is none to read.
    """

    fingerprint: str
    features: dict[str, float | int | str | None]
    candidates: tuple[Recipe, ...]
    space: Space
    left_out: dict[str, str] = field(default_factory=dict)
    lr: float | None = None

    def to_data(self) -> dict[str, Any]:
        """Returns it ready for JSON."""
        data: dict[str, Any] = jsonfile.to_data(self)
        return data

    @staticmethod
    def from_data(data: dict[str, Any]) -> Described:
        """Returns what `to_data` wrote."""
        return jsonfile.from_data(Described, data, ArgumentError, "The task's description in the storage")


def trials_of(study: Study, candidates: int) -> int:
    """Returns how many trials a task of so many candidates has, the long ones of all leaders among them."""
    places = len(study.seeds) + len(study.lr_steps)
    probes = study.trials if study.trials is not None else candidates * places
    return probes + (0 if study.long is None else len(study.seeds) * (1 + study.long.top))


def dense_jobs(study: Study, task: str, described: Described, first: int = 0) -> list[StudyJob]:
    """Returns a probe of every candidate with every seed; of the first seed, at every place of the grid too.

    Those of one seed stand together, so that a worker draws the owner's weights once for all of them.
    """
    entries = [
        (seed, lr_step, recipe)
        for place, seed in enumerate(study.seeds)
        for lr_step in (0, *(study.lr_steps if place == 0 else ()))
        for recipe in described.candidates
    ]
    steps, rungs = study.probe.steps, study.probe.rungs
    return [
        StudyJob(task, number, "probe", recipe, seed, lr_step, steps, rungs)
        for number, (seed, lr_step, recipe) in enumerate(entries, start=first)
    ]


def long_jobs(study: Study, task: str, leaders: Sequence[tuple[Recipe, int]], first: int) -> list[StudyJob]:
    """Returns long trainings of the owner's weights and the leaders, each on every seed.

    Args:
        study: its `long` says how long.
        task: their name.
        leaders: recipe and learning-rate step, best first.
        first: number of the first one.
    """
    if study.long is None:
        return []
    entries = [(seed, *one) for seed in study.seeds for one in dict.fromkeys([(OWN, 0), *leaders])]
    rungs = tuple(range(study.probe.steps, study.long.steps, study.probe.steps))
    return [
        StudyJob(task, number, "long", recipe, seed, lr_step, study.long.steps, rungs)
        for number, (seed, recipe, lr_step) in enumerate(entries, start=first)
    ]
