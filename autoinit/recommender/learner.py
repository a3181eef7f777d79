"""What is expected of recipes: three forests over one set of columns, and how far off they are on unseen families.

From the same families it is learned up to which doubt a first choice may still be given, so that its harm is bounded:
conformal risk control (Angelopoulos et al. 2022, arXiv:2208.02814). The doubt is the share of the trees that put a
recipe no higher than as-is: it tells the harmful first choices apart better than the predicted chance of harm does
(benchmarks/results/recommender.md).

They answer three questions of a recipe on a task: its *place* among the task's candidates (the share that it beats),
the *harm* it may do (the chance of a loss more than 5 % above as-is's), and the *gain* in nats. A forest of its own for
each: one that is split for all three at once tells places worse (benchmarks/results/recommender.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..activations import Array
from .examples import HARM, OWN_COLUMN, Examples
from .forest import Forest, grown

TREES, LEAF, SHARE = 120, 10, 0.3
HELD_OUT_TREES = 40
"""Of the forests that only tell how far predictions are off."""
FOLDS = 5
"""In which predictions are made for tasks that were not learned from, to see how far they are off."""
COVERED = 0.8
"""Share of the outcomes that an interval is to cover."""
CAUTION = 1.0
"""Places that the certainty of harm costs when recipes are compared. What may be chosen is decided by `PROMISED`."""
PROMISED = 0.02
"""Share of tasks, of kinds of networks that were not learned from, that the first choice harms at most."""
NEVER = -1.0
"""The doubt up to which a first choice is given where too few tasks are known to promise anything."""

Answer = Literal["try", "keep", "unsure"]
"""What is said of a task: try the likeliest recipe; nothing is worth a try; one might be, with too much doubt."""


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

    def worth(self, caution: float) -> Array:
        """Returns what recipes are ranked by, higher first: the place, less what the risk of harm costs."""
        return self.place - caution * self.harm

    def doubts(self, own: int) -> Array:
        """Returns for each recipe the share of the trees that put it no higher than as-is, which is at `own`."""
        return np.asarray((self.places <= self.places[own]).mean(1))

    def of(self, rows: slice) -> Predicted:
        """Returns what is expected of some of the recipes."""
        return Predicted(self.places[rows], self.harm[rows], self.gain[rows], self.low[rows], self.high[rows])

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
class Verdict:
    """What is to be done on a task.

    Attributes:
        answer: in a word.
        likeliest: the recipe that is worth most besides as-is; as-is where there is no other.
        order: what to try first, if so many can be tried; as-is is the first where it is to be kept.
    """

    answer: Answer
    likeliest: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Learner:
    """Three forests that learned from the same columns.

    Attributes:
        place, harm, gain: the forests.
        columns: so many, from the first of `NAMES` on.
        stretch: standard deviations that a gain's interval has to either side.
        caution: places that the certainty of harm costs when recipes are compared.
        doubt: share of the trees that may put a first choice no higher than as-is.
    """

    place: Forest
    harm: Forest
    gain: Forest
    columns: int
    stretch: float
    caution: float
    doubt: float

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
        return predicted.worth(self.caution)

    def verdict(self, predicted: Predicted, own: int, count: int, far: bool = False) -> Verdict:
        """Returns what is to be done on a task.

        Args:
            predicted: what is expected of its recipes.
            own: the place of as-is among them.
            count: so many recipes are to be tried at most.
            far: whether the task lies outside of what was studied, where nothing can be promised.
        """
        worth = self.worth(predicted)
        likeliest = likeliest_of(worth, own)
        if keeps(worth, predicted.gain, likeliest, own):
            answer: Answer = "keep"
        else:
            answer = "unsure" if far or predicted.doubts(own)[likeliest] > self.doubt else "try"
        ranked = worth.copy()
        ranked[likeliest] = np.inf if answer == "try" else ranked[likeliest]
        order = predicted.first(ranked, count)
        kept = order if answer == "try" else [own, *(place for place in order if place != own)]
        return Verdict(answer, likeliest, tuple(kept[:count]))


def likeliest_of(worth: Array, own: int) -> int:
    """Returns the recipe that is worth most besides as-is."""
    others = np.delete(np.arange(len(worth)), own)
    return int(others[worth[others].argmax()]) if len(others) else own


def keeps(worth: Array, gain: Array, likeliest: int, own: int) -> bool:
    """Whether not even the likeliest recipe is expected to be better than as-is, by more than counts as harm."""
    return bool(worth[likeliest] <= worth[own] or gain[likeliest] <= HARM)


def fitted_learner(examples: Examples, columns: int, groups: Sequence[str], seed: int) -> Learner:
    """Returns a learner fitted to examples.

    Args:
        examples: to learn from.
        columns: so many of their features.
        groups: of each task; tasks of one group are held back together when errors are measured.
        seed: of the trees' splits.
    """
    return learner_with(examples, columns, *held_out(examples, columns, groups, seed), seed)


def learner_with(examples: Examples, columns: int, told: Predicted, stretch: float, seed: int) -> Learner:
    """Returns a learner fitted to examples, whose errors are known.

    Args:
        examples: to learn from.
        columns: so many of their features.
        told: what is predicted for each row without its own group.
        stretch: standard deviations that cover the errors of that.
        seed: of the trees' splits.
    """
    place, harm, gain = (_forest(examples, target, columns, TREES, seed) for target in _targets(examples))
    return Learner(place, harm, gain, columns, stretch, CAUTION, _doubt(examples, told))


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


def held_out(examples: Examples, columns: int, groups: Sequence[str], seed: int) -> tuple[Predicted, float]:
    """Returns what is predicted for each row without its own group, and the deviations that cover the gain's errors.

    Args:
        examples: to learn from.
        columns: so many of their features.
        groups: of each task.
        seed: of the trees' splits.
    """
    count = len(examples.task)
    places, harm, gain = np.zeros((count, HELD_OUT_TREES)), np.zeros(count), np.zeros(count)
    spread = np.ones(count)
    everything = range(len(examples.results))
    for part in folds(groups):
        rest = [task for task in everything if task not in set(part)]
        if not rest:  # all tasks are of one group
            continue
        held, train = np.isin(examples.task, part), examples.of(rest)
        rows = examples.features[held, :columns]
        grown_here = [_forest(train, target, columns, HELD_OUT_TREES, seed) for target in _targets(train)]
        places[held] = grown_here[0].by_tree(rows)[:, :, 0]
        harm[held] = grown_here[1].predict(rows)[0][:, 0]
        gain[held], spread[held] = (found[:, 0] for found in grown_here[2].predict(rows))
    for array in (harm, gain, spread):
        array[examples.own] = 0.0
    stretch = _stretch(examples, gain, spread)
    return Predicted(places, harm, gain, gain - stretch * spread, gain + stretch * spread), stretch


def _stretch(examples: Examples, gain: Array, spread: Array) -> float:
    """Returns how many standard deviations cover the wanted share of the held-out rows."""
    known = spread > 0
    errors = np.abs(examples.gain - gain)[known] / np.maximum(spread[known], 1e-9)
    return weighted_quantile(errors, examples.weight[known], COVERED)


def _doubt(examples: Examples, told: Predicted) -> float:
    """Returns the doubt up to which a first choice is given, by held-out tasks.

    It is the largest at which their harmed share, with one more task that counts as harmed, is as promised.

    Args:
        examples: with what came of them.
        told: what is predicted for each row without its own group.
    """
    given: list[tuple[float, bool]] = []
    for task in range(len(examples.results)):
        rows = examples.rows(task)
        predicted = told.of(rows)
        worth = predicted.worth(CAUTION)
        likeliest = likeliest_of(worth, 0)
        if not keeps(worth, predicted.gain, likeliest, 0):
            harmed = bool(examples.gain[rows][likeliest] < -HARM)
            given.append((float(predicted.doubts(0)[likeliest]), harmed))
    return bounded(given, len(examples.results), PROMISED)


def bounded(given: Sequence[tuple[float, bool]], tasks: int, promised: float) -> float:
    """Returns the largest doubt or risk up to which choices may be given so that few harm; `NEVER` where none may.

    On a further task, of the kind of these, the expected harm is at most what is promised.

    Args:
        given: of each choice, its doubt or predicted risk, and whether it did harm.
        tasks: how many there were, those without a choice too.
        promised: share of tasks.
    """
    found, harmed = NEVER, 0
    for risk, together in itertools.groupby(sorted(given), key=lambda one: one[0]):
        harmed += sum(did for _, did in together)
        if (harmed + 1) / (tasks + 1) > promised:
            break
        found = risk
    return found


def weighted_quantile(values: Array, weight: Array, share: float) -> float:
    """Returns the least value that a share of the weight is at or below."""
    order = np.argsort(values)
    reached = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])
