"""The recommender: fitted to what studies have found, it ranks recipes for a task and says how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import KnowledgeError
from ..knowledge.tables import Knowledge
from ..metafeatures import Features
from ..recipe import Recipe
from .examples import NAMES, TASK_NAMES, Examples, examples_of, matrix
from .forest import Forest, grown
from .portfolio import portfolio

Array = NDArray[np.float64]

TREES, LEAF, SHARE = 120, 3, 0.4
HELD_OUT_TREES = 60
"""Of the forests that only tell how far predictions are off."""
FOLDS = 5
"""In which predictions are made for tasks that were not learned from, to see how far they are off."""
COVERED = 0.8
"""Share of the outcomes that an interval is to cover."""
CAUTIONS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)
"""Standard deviations by which a prediction is lowered before recipes are compared; the folds choose."""
HARM = 0.05
"""Nats of loss above as-is from which a choice counts as harm."""
TOLERATED, HARM_PENALTY = 0.02, 5.0
"""Share of tasks that may be harmed, and what each further one costs in regret."""
FAR_SHARE = 0.9
"""Share of the studied tasks that are nearer to another family's than the distance from which a task counts as far."""
FARTHEST = 3.0
"""Standard deviations at which a feature's distance ends: one odd number alone makes no task far."""
NEAREST = 3
LEAST_TASKS = 10
PORTFOLIO = 8


@dataclass(frozen=True)
class Predicted:
    """What is expected of some recipes on a task; all arrays have one number for each recipe.

    Attributes:
        outcome: normalized: 0 as-is, 1 the best that there is.
        outcome_spread: its standard deviation.
        gain: nats by which the loss is lower than as-is's.
        low, high: ends of the gain's interval.
    """

    outcome: Array
    outcome_spread: Array
    gain: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Recommender:
    """Ranks recipes for tasks that nobody has studied.

    Attributes:
        forest: predicts outcome and gain.
        stretch: [outcome, gain], standard deviations that an interval has to either side.
        caution: standard deviations by which an outcome is lowered before recipes are compared.
        centre, spread: of each task feature, over the studied tasks.
        studied: [tasks, task features], standardized; 0 where one is unknown.
        names: of the studied tasks.
        far: distance to the nearest studied tasks from which nothing is promised.
        portfolio: the recipes that do well together on all studied tasks, best first.
        source: hash of the knowledge that it was fitted to.
    """

    forest: Forest
    stretch: Array
    caution: float
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
        return self.predicted(matrix(task, recipes))

    def predicted(self, rows: Array) -> Predicted:
        """Returns what is expected of rows of features, in the order of `NAMES`. As-is is known: it gains nothing."""
        mean, spread = self.forest.predict(rows)
        own = rows[:, NAMES.index("init_as_is")] == 1
        mean[own], spread[own] = 0.0, 0.0
        reach = self.stretch[1] * spread[:, 1]
        return Predicted(mean[:, 0], spread[:, 0], mean[:, 1], mean[:, 1] - reach, mean[:, 1] + reach)

    def worth(self, predicted: Predicted) -> Array:
        """Returns what recipes are ranked by, higher first: the outcome, less what is not sure of it."""
        return predicted.outcome - self.caution * predicted.outcome_spread

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


def fit_examples(examples: Examples, *, seed: int = 0, source: str = "", groups: Sequence[str] = ()) -> Recommender:
    """Returns a recommender fitted to examples.

    Args:
        examples: of ten tasks at least.
        seed: of the trees' splits.
        source: hash of the knowledge that they are of.
        groups: of each task; tasks of one group are held back together when errors are measured. Their families where
            it is left out.

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
    mean, spread = _held_out(examples, told, seed)
    rows = np.stack([_task_row(found.task.features) for found in examples.results])
    centre, width = _moments(rows)
    studied = _standardized(rows, centre, width)
    return Recommender(
        forest=_forest(examples, TREES, seed),
        stretch=_stretch(examples, mean, spread),
        caution=_caution(examples, mean, spread),
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


def _forest(examples: Examples, trees: int, seed: int) -> Forest:
    targets = np.stack([examples.outcome, examples.gain], axis=1)
    return grown(examples.features, targets, examples.weight, trees=trees, leaf=LEAF, share=SHARE, seed=seed)


# How far predictions are off


def folds(groups: Sequence[str], count: int = FOLDS) -> list[list[int]]:
    """Returns places in so many folds of about one size; a group is never split."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    parts: list[list[int]] = [[] for _ in range(min(count, len(members)))]
    for places in sorted(members.values(), key=lambda places: (-len(places), places)):
        min(parts, key=len).extend(places)
    return parts


def _held_out(examples: Examples, groups: Sequence[str], seed: int) -> tuple[Array, Array]:
    """Returns mean and spread of the targets, predicted for each row without its own group."""
    mean = np.zeros((len(examples.task), 2))
    spread = np.ones((len(examples.task), 2))
    everything = range(len(examples.results))
    for part in folds(groups):
        rest = [task for task in everything if task not in set(part)]
        if not rest:  # all tasks are of one group
            continue
        held = np.isin(examples.task, part)
        mean[held], spread[held] = _forest(examples.of(rest), HELD_OUT_TREES, seed).predict(examples.features[held])
    own = examples.features[:, NAMES.index("init_as_is")] == 1
    mean[own], spread[own] = 0.0, 0.0
    return mean, spread


def _stretch(examples: Examples, mean: Array, spread: Array) -> Array:
    """Returns how many standard deviations cover the wanted share of the held-out rows, for each target."""
    targets = np.stack([examples.outcome, examples.gain], axis=1)
    known = spread[:, 0] > 0
    errors = np.abs(targets - mean)[known] / np.maximum(spread[known], 1e-9)
    return np.array([_quantile(errors[:, place], examples.weight[known], COVERED) for place in range(2)])


def _caution(examples: Examples, mean: Array, spread: Array) -> float:
    """Returns the caution that serves the held-out tasks best: least regret, with few of them harmed."""
    costs = []
    for caution in CAUTIONS:
        worth = mean[:, 0] - caution * spread[:, 0]
        picks = [_first(worth, examples, task) for task in range(len(examples.results))]
        regret = np.mean([_best(examples, task) - examples.outcome[pick] for task, pick in enumerate(picks)])
        harmed = np.mean([examples.gain[pick] < -HARM for pick in picks])
        costs.append(regret + HARM_PENALTY * max(0.0, harmed - TOLERATED))
    return CAUTIONS[int(np.argmin(costs))]


def _first(worth: Array, examples: Examples, task: int) -> int:
    rows = examples.rows(task)
    return int(rows.start) + int(worth[rows].argmax())


def _best(examples: Examples, task: int) -> float:
    return float(examples.outcome[examples.rows(task)].max())


def _quantile(values: Array, weight: Array, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])


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
    """Returns the distance beyond which few studied tasks are from those of all other groups."""
    distances = np.sqrt(((studied[:, None] - studied[None]) ** 2).mean(2))
    other = np.array([[one != two for two in groups] for one in groups])
    found = [np.sort(row[mask])[:NEAREST].mean() for row, mask in zip(distances, other, strict=True) if mask.any()]
    return float(np.quantile(found, FAR_SHARE)) if found else float("inf")
