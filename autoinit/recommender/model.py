"""The recommender: fitted to what studies have found, it ranks recipes for a task and says how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..activations import Array
from ..errors import KnowledgeError
from ..knowledge.features import Features
from ..knowledge.tables import Knowledge
from ..recipes.recipe import Recipe
from .examples import BLIND, TASK_NAMES, Examples, examples_of, matrix
from .informed import Informed, informed
from .learner import Learner, Predicted, held_out, learner_with
from .portfolio import portfolio

FARTHEST = 3.0
"""Standard deviations at which a feature's distance ends: one odd number alone makes no task far."""
NEAREST = 3
LEAST_TASKS = 10
PORTFOLIO = 8


@dataclass(frozen=True)
class Recommender:
    """Ranks recipes for tasks that nobody has studied.

    The one that ships is fitted and kept by `recommend` itself, so few need to make one: `autoinit recommender fit
    records.jsonl --out mine.npz` fits one to the records of your own studies, and `recommend` and `select` take it, or
    the path of its file, as `recommender`. It is plain arrays, never pickled, and looks at no model: a task and a
    recipe are described to it by numbers.

    Attributes:
        learner: predicts what recipes are worth, by what is known before any pass through the model.
        informed: the same once some of them were tried for a few steps; None where no study tells how trainings began.
        centre, spread: mean and standard deviation of each task feature, over the studied tasks.
        studied: [tasks, task features], standardized; 0 where one is unknown.
        names: names of the studied tasks.
        far: distance to the nearest studied tasks beyond which nothing is promised: none of these is farther from those
            of other groups, and what is promised was found out on those.
        portfolio: the recipes that do well together on all studied tasks, best first.
        source: hash of the knowledge that it was fitted to.
    """

    learner: Learner
    informed: Informed | None
    centre: Array
    spread: Array
    studied: Array
    names: tuple[str, ...]
    far: float
    portfolio: tuple[Recipe, ...]
    source: str

    @staticmethod
    def fit(knowledge: Knowledge, *, seed: int = 0) -> Recommender:
        """Returns a recommender fitted to what studies have found.

        Args:
            knowledge: of ten tasks at least.
            seed: of the trees' splits.

        Raises:
            KnowledgeError: too few tasks have as-is and another candidate.
        """
        return fit_examples(examples_of(knowledge), seed=seed, source=knowledge.hash)

    def predict(self, task: Mapping[str, float], recipes: Sequence[Features]) -> Predicted:
        """Returns what is expected of recipes on a task.

        Args:
            task: its features; any may be missing.
            recipes: the features of each on that task.
        """
        return self.learner.predict(matrix(task, recipes))

    def worth(self, predicted: Predicted) -> Array:
        """Returns what recipes are ranked by, higher first: the place, less what the risk of harm costs."""
        return self.learner.worth(predicted)

    def nearest(self, task: Mapping[str, float], count: int = NEAREST) -> list[tuple[str, float]]:
        """Returns the nearest studied tasks and their distances, the root mean square over standardized features."""
        distances = self._distances(_standardized(_task_row(task), self.centre, self.spread))
        order = np.argsort(distances, kind="stable")[:count]
        return [(self.names[place], float(distances[place])) for place in order]

    def distance(self, task: Mapping[str, float]) -> float:
        """Returns the mean distance to the nearest studied tasks."""
        return float(np.mean([distance for _, distance in self.nearest(task)]))

    def _distances(self, row: Array) -> Array:
        return np.asarray(np.sqrt(((self.studied - row) ** 2).mean(1)))


def fit_examples(
    examples: Examples, *, seed: int = 0, source: str = "", groups: Sequence[str] = (), probes: bool = True
) -> Recommender:
    """Returns a recommender fitted to examples.

    Args:
        examples: of ten tasks at least.
        seed: of the trees' splits.
        source: hash of the knowledge that they are of.
        groups: of each task; tasks of one group are held back together when errors are measured. Their families where
            it is left out.
        probes: whether it learns what short trainings add; that takes about as long as all else.

    Raises:
        KnowledgeError: there are too few tasks.
    """
    count = len(examples.results)
    if count < LEAST_TASKS:
        raise KnowledgeError(
            f"{count} tasks with as-is and another candidate are too few to learn from; {LEAST_TASKS} are needed. "
            "Add records of more studies (autoinit study run, autoinit recommender fit)."
        )
    told = list(groups) or [found.task.family or found.task.fingerprint for found in examples.results]
    rows = np.stack([_task_row(found.task.features) for found in examples.results])
    centre, width = _moments(rows)
    studied = _standardized(rows, centre, width)
    unseen, stretch = held_out(examples, BLIND, told, seed)
    return Recommender(
        learner=learner_with(examples, BLIND, unseen, stretch, seed),
        informed=informed(examples, unseen, told, seed) if probes else None,
        centre=centre,
        spread=width,
        studied=studied,
        names=tuple(found.task.name for found in examples.results),
        far=_far(studied, told),
        portfolio=_recipes(examples, portfolio(examples, PORTFOLIO)),
        source=source,
    )


def _recipes(examples: Examples, keys: Sequence[str]) -> tuple[Recipe, ...]:
    known = {tried.recipe.key: tried.recipe for found in examples.results for tried in found.task.tried}
    return tuple(known[key] for key in keys)


# How near tasks are


def _task_row(task: Mapping[str, float]) -> Array:
    return np.array([task.get(name, float("nan")) for name in TASK_NAMES], dtype=np.float64)


def _moments(rows: Array) -> tuple[Array, Array]:
    known = ~np.isnan(rows)
    count = np.maximum(known.sum(0), 1)
    centre = np.where(known, rows, 0.0).sum(0) / count
    spread = np.sqrt((np.where(known, rows - centre, 0.0) ** 2).sum(0) / count)
    return centre, np.where(spread > 1e-6, spread, 1.0)


def _standardized(rows: Array, centre: Array, spread: Array) -> Array:
    return np.clip(np.nan_to_num((rows - centre) / spread, nan=0.0), -FARTHEST, FARTHEST)


def _far(studied: Array, groups: Sequence[str]) -> float:
    """Returns the largest distance of a studied task from those of all other groups."""
    distances = np.sqrt(((studied[:, None] - studied[None]) ** 2).mean(2))
    other = np.array([[one != two for two in groups] for one in groups])
    found = [np.sort(row[mask])[:NEAREST].mean() for row, mask in zip(distances, other, strict=True) if mask.any()]
    return float(max(found)) if found else float("inf")
