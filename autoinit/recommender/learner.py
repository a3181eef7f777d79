"""What is expected of recipes: three forests over one set of columns, and how far off they are on unseen families.

They answer three questions of a recipe on a task: its *place* among the task's candidates (the share that it beats),
the *harm* it may do (the chance of a loss more than 5 % above as-is's), and the *gain* in nats. A forest of its own for
each: one that is split for all three at once tells places worse (benchmarks/results/recommender.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..activations import Array
from .examples import HARM, OWN_COLUMN, Examples
from .forest import Forest, grown

TREES, LEAF, SHARE = 120, 3, 0.3
HELD_OUT_TREES = 40
"""Of the forests that only tell how far predictions are off."""
FOLDS = 5
"""In which predictions are made for tasks that were not learned from, to see how far they are off."""
COVERED = 0.8
"""Share of the outcomes that an interval is to cover."""
CAUTIONS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Places that the certainty of harm costs when recipes are compared; the folds choose."""
TOLERATED, HARM_PENALTY = 0.02, 5.0
"""Share of tasks that may be harmed, and what each further one costs in regret."""


@dataclass(frozen=True)
class Predicted:
    """What is expected of some recipes on a task; the first axis of all arrays is the recipes'.

    Attributes:
        places: [recipes, trees], the share of other candidates that a recipe beats, as each tree has it.
        harm: chance that the loss is more than 5 % above as-is's.
        gain: nats by which the loss is lower than as-is's.
        low, high: ends of the gain's interval.
    """

    places: Array
    harm: Array
    gain: Array
    low: Array
    high: Array

    @property
    def place(self) -> Array:
        """The share of other candidates that a recipe beats."""
        return np.asarray(self.places.mean(1))

    def first(self, worth: Array, count: int) -> list[int]:
        """Returns the recipes to try if so many can be tried, the one of the highest worth first.

        Each further one adds most to the best place that the trees expect of those before it and itself: the second of
        two like recipes adds little, however good it is. Its risk costs nothing there, since trying it would show it.

        Args:
            worth: of each, higher is better.
            count: how many at most.
        """
        chosen = [int(worth.argmax())]
        reached = self.places[chosen[0]]
        while len(chosen) < min(count, len(worth)):
            added = np.maximum(self.places, reached).mean(1)
            added[chosen] = -np.inf
            chosen.append(int(added.argmax()))
            reached = np.maximum(reached, self.places[chosen[-1]])
        return chosen


@dataclass(frozen=True)
class Learner:
    """Three forests that learned from the same columns.

    Attributes:
        place, harm, gain: the forests.
        columns: so many, from the first of `NAMES` on.
        stretch: standard deviations that a gain's interval has to either side.
        caution: places that the certainty of harm costs when recipes are compared.
    """

    place: Forest
    harm: Forest
    gain: Forest
    columns: int
    stretch: float
    caution: float

    def predict(self, rows: Array) -> Predicted:
        """Returns what is expected of rows of features, in the order of `NAMES`. As-is is known: it gains nothing."""
        seen = rows[:, : self.columns]
        gain, spread = (part[:, 0] for part in self.gain.predict(seen))
        harm = self.harm.predict(seen)[0][:, 0]
        own = rows[:, OWN_COLUMN] == 1
        for array in (gain, spread, harm):
            array[own] = 0.0
        reach = self.stretch * spread
        return Predicted(self.place.by_tree(seen)[:, :, 0], harm, gain, gain - reach, gain + reach)

    def worth(self, predicted: Predicted) -> Array:
        """Returns what recipes are ranked by, higher first: the place, less what the risk of harm costs."""
        return predicted.place - self.caution * predicted.harm


def fitted_learner(examples: Examples, columns: int, groups: Sequence[str], seed: int) -> Learner:
    """Returns a learner fitted to examples.

    Args:
        examples: to learn from.
        columns: so many of their features.
        groups: of each task; tasks of one group are held back together when errors are measured.
        seed: of the trees' splits.
    """
    told_place, told_harm, told_gain, spread = _held_out(examples, columns, groups, seed)
    place, harm, gain = (_forest(examples, target, columns, TREES, seed) for target in _targets(examples))
    stretch, caution = _stretch(examples, told_gain, spread), _caution(examples, told_place, told_harm)
    return Learner(place, harm, gain, columns, stretch, caution)


def _targets(examples: Examples) -> tuple[Array, Array, Array]:
    return examples.place, examples.harm, examples.gain


def _forest(examples: Examples, target: Array, columns: int, trees: int, seed: int) -> Forest:
    rows = examples.features[:, :columns]
    return grown(rows, target[:, None], examples.weight, trees=trees, leaf=LEAF, share=SHARE, seed=seed)


# How far predictions are off


def folds(groups: Sequence[str], count: int = FOLDS) -> list[list[int]]:
    """Returns places in so many folds of about one size; a group is never split."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    parts: list[list[int]] = [[] for _ in range(min(count, len(members)))]
    for places in sorted(members.values(), key=lambda places: (-len(places), places)):
        min(parts, key=len).extend(places)
    return [sorted(part) for part in parts]


def _held_out(examples: Examples, columns: int, groups: Sequence[str], seed: int) -> tuple[Array, ...]:
    """Returns place, harm, gain and the gain's spread, predicted for each row without its own group."""
    count = len(examples.task)
    place, harm, gain, spread = np.zeros(count), np.zeros(count), np.zeros(count), np.ones(count)
    everything = range(len(examples.results))
    for part in folds(groups):
        rest = [task for task in everything if task not in set(part)]
        if not rest:  # all tasks are of one group
            continue
        held, train = np.isin(examples.task, part), examples.of(rest)
        rows = examples.features[held, :columns]
        found = [
            _forest(train, target, columns, HELD_OUT_TREES, seed).predict(rows) for target in _targets(train)
        ]  # of each: mean and spread
        place[held], harm[held], gain[held] = (mean[:, 0] for mean, _ in found)
        spread[held] = found[-1][1][:, 0]
    for array in (harm, gain, spread):
        array[examples.own] = 0.0
    return place, harm, gain, spread


def _stretch(examples: Examples, gain: Array, spread: Array) -> float:
    """Returns how many standard deviations cover the wanted share of the held-out rows."""
    known = spread > 0
    errors = np.abs(examples.gain - gain)[known] / np.maximum(spread[known], 1e-9)
    return _quantile(errors, examples.weight[known], COVERED)


def _caution(examples: Examples, place: Array, harm: Array) -> float:
    """Returns the caution that serves the held-out tasks best: least regret, with few of them harmed."""
    costs: list[float] = []
    for caution in CAUTIONS:
        worth = place - caution * harm
        picks = [_first(worth, examples, task) for task in range(len(examples.results))]
        regret = float(np.mean([_best(examples, task) - examples.outcome[pick] for task, pick in enumerate(picks)]))
        harmed = float(np.mean(examples.gain[picks] < -HARM))
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
