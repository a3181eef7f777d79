"""What a few short trainings add to what is predicted: some recipes beside the owner's weights, on the same batches.

After so few steps a lead says who is sooner, and only in part who trains better. What it is worth is therefore learned
too: from predictions for studied tasks that had not seen them, the leads at their first rung, and what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from ..activations import Array
from .examples import HARM, Examples, Results
from .forest import Forest, grown
from .learner import CAUTION, COVERED, PROMISED, Answer, Predicted, bounded, folds, weighted_quantile

STEPS = 16
"""Of a short training."""
SHORTEST, LONGEST = 8, 32
"""Steps of the studied trainings' rungs that stand for it."""
TREES, LEAF, SHARE = 100, 20, 0.6
USUAL = 3
"""Recipes that are tried where it is found out how far what they tell can be trusted."""
MOST_LEAD = 2.0
"""Nats at which a lead ends, either way."""
LEAST_TASKS = 10
SIDED = 1.2816
"""Standard deviations that an interval of 80 % has to either side."""


@dataclass(frozen=True)
class Settled:
    """What is to be done once some recipes were tried.

    Attributes:
        answer: in a word.
        best: the place of the recipe whose lead and predicted gain together are largest, of those that were tried;
            as-is where none was.
        leads: by the place of each that was tried, nats by which its held-back loss was lower than as-is's.
        gain: by place, nats by which the loss is expected to be lower than as-is's after a training.
        harm: by place, the chance that it is more than 5 % higher.
        reach: by place, how far the gain's interval goes to either side.
    """

    answer: Answer
    best: int
    leads: Mapping[int, float]
    gain: Mapping[int, float]
    harm: Mapping[int, float]
    reach: Mapping[int, float]


@dataclass(frozen=True)
class Informed:
    """Two forests that learned what a lead after a few steps says of a training.

    Attributes:
        gain, harm: the forests.
        risk: chance of harm up to which a recipe that was tried is recommended.
        stretch: standard deviations that a gain's interval has to either side.
    """

    gain: Forest
    harm: Forest
    risk: float
    stretch: float

    def after(self, predicted: Predicted, leads: Mapping[int, float], level: float) -> tuple[Array, Array, Array]:
        """Returns gain, how far that may be off, and harm of the recipes that were tried, in the order of the leads.

        Args:
            predicted: before.
            leads: by the place of a recipe, nats by which its held-back loss was lower than as-is's.
            level: log of as-is's held-back loss at that time over a constant guess's; NaN where that is unknown.
        """
        places = list(leads)
        rows = _rows(predicted, np.array([leads[place] for place in places]), level, places)
        gain, spread = (found[:, 0] for found in self.gain.predict(rows))
        return gain, self.stretch * spread, self.harm.predict(rows)[0][:, 0]

    def settled(self, predicted: Predicted, leads: Mapping[int, float], level: float, own: int) -> Settled:
        """Returns what is to be done.

        Args:
            predicted: before.
            leads: of the recipes that were tried, as-is not among them.
            level: as for `after`.
            own: the place of as-is.
        """
        if not leads:
            return Settled("keep", own, {}, {}, {}, {})
        gain, reach, harm = self.after(predicted, leads, level)
        places = list(leads)
        # Recipes are told apart by their leads, which the gain's forest rounds off: it has seen mostly other tasks.
        sums = predicted.gain[places] + np.array([leads[place] for place in places])
        best = int(sums.argmax())
        answer: Answer = "unsure" if harm[best] > self.risk else "try"
        if min(gain[best], sums[best]) <= HARM:
            answer = "keep"
        return Settled(
            answer,
            places[best],
            dict(leads),
            dict(zip(places, map(float, gain), strict=True)),
            dict(zip(places, map(float, harm), strict=True)),
            dict(zip(places, map(float, reach), strict=True)),
        )

    def tried(
        self,
        predicted: Predicted,
        worth: Array,
        lead: Callable[[int], float],
        level: float,
        own: int,
        count: int,
        allowed: Sequence[int] | None = None,
    ) -> Settled:
        """Returns what is to be done once some recipes were tried, each chosen by what those before it had shown.

        Args:
            predicted: before.
            worth: what recipes are ranked by.
            lead: tries the recipe at a place, and returns its lead.
            level: as for `after`.
            own: the place of as-is.
            count: so many are tried, fewer where there are no more.
            allowed: as for `next_to_try`.
        """
        leads: dict[int, float] = {}
        settled = self.settled(predicted, leads, level, own)
        while len(leads) < count:
            place = next_to_try(predicted, worth, settled.gain, own, allowed)
            if place is None:
                break
            leads[place] = lead(place)
            settled = self.settled(predicted, leads, level, own)
        return settled


def next_to_try(
    predicted: Predicted, worth: Array, gains: Mapping[int, float], own: int, allowed: Sequence[int] | None = None
) -> int | None:
    """Returns the recipe whose trial promises most: the likeliest first, then by expected improvement.

    That is how much it is expected to add to the best gain so far (Jones, Schonlau & Welch 1998, "Efficient global
    optimization of expensive black-box functions"); the forests' spread says how far it may be off.

    Args:
        predicted: before anything was tried.
        worth: what recipes are ranked by.
        gains: of those that were tried, as they are expected now.
        own: the place of as-is, which need not be tried.
        allowed: places that may be tried; None for all.
    """
    places = range(len(worth)) if allowed is None else allowed
    left = [place for place in places if place != own and place not in gains]
    if not left:
        return None
    if not gains:
        return max(left, key=lambda place: float(worth[place]))
    best = max(0.0, *gains.values())
    spread = np.maximum((predicted.high - predicted.low) / 2 / SIDED, 1e-9)
    above = predicted.gain - best
    z = above / spread
    improvement = above * ndtr(z) + spread * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return max(left, key=lambda place: float(improvement[place]))


def informed(examples: Examples, told: Predicted, groups: Sequence[str], seed: int) -> Informed | None:
    """Returns what leads say, learned from examples; None where too few of them tell how their trainings began.

    Args:
        examples: to learn from.
        told: what was predicted for each row without its own group.
        groups: of each task; tasks of one group are held back together when it is found out how much risk may be taken.
        seed: of the trees' splits.
    """
    all_leads = ((task, leads_of(found)) for task, found in enumerate(examples.results))
    begun = {task: leads for task, leads in all_leads if leads is not None}
    known = list(begun)
    if len(known) < LEAST_TASKS or len({groups[task] for task in known}) < 2:
        return None
    parts = [_of_task(examples, told, task, begun[task]) for task in known]
    rows, gain, harm, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    of_task = np.repeat(known, [len(part[0]) for part in parts])
    everything = np.ones(len(rows), dtype=bool)
    made = _grown(rows, gain, harm, weight, everything, seed)
    given: list[tuple[float, bool]] = []
    off = np.zeros(len(rows))
    for part in folds([groups[task] for task in known]):
        held = [known[place] for place in part]
        unseen = np.isin(of_task, held)
        forests = Informed(*_grown(rows, gain, harm, weight, ~unseen, seed), risk=1.0, stretch=1.0)
        middle, spread = (found[:, 0] for found in forests.gain.predict(rows[unseen]))
        off[unseen] = np.abs(gain[unseen] - middle) / np.maximum(spread, 1e-9)
        given += [one for task in held if (one := _choice(forests, examples, told, task, begun[task])) is not None]
    return Informed(*made, bounded(given, len(known), PROMISED), weighted_quantile(off, weight, COVERED))


def leads_of(found: Results) -> tuple[Array, Array] | None:
    """Returns what a task's trainings showed at their first rung; None where they had none in time.

    Returns:
        nats by which a candidate's held-back loss was lower than as-is's, [candidates, seeds], and the level of as-is's
        [seeds]; both NaN where unknown.
    """
    tried = {one.recipe.key: one for one in found.task.tried}
    reference = found.task.features.get("data_reference", math.nan)
    losses = np.full((len(found.keys), len(found.seeds)), np.nan)
    for row, key in enumerate(found.keys):
        by_seed = {one.seed: one for one in tried[key].outcomes if one.lr_step == 0}
        for column, seed in enumerate(found.seeds):
            early = [loss for at, loss in by_seed[seed].rungs if SHORTEST <= at <= LONGEST and loss > 0]
            if early:
                losses[row, column] = math.log(early[0])
    if not np.isfinite(losses[0]).any():
        return None
    return np.clip(losses[0] - losses, -MOST_LEAD, MOST_LEAD), losses[0] - reference


def _of_task(examples: Examples, told: Predicted, task: int, began: tuple[Array, Array]) -> tuple[Array, ...]:
    """Returns rows, gains, harms and weights of a task's candidates, a row for each seed on which a lead is known."""
    leads, levels = began
    rows = examples.rows(task)
    found = []
    for column in range(leads.shape[1]):
        known = np.flatnonzero(np.isfinite(leads[:, column]))[1:]  # without as-is
        seen = _rows(told.of(rows), leads[known, column], float(levels[column]), known)
        found.append((seen, examples.gain[rows][known], examples.harm[rows][known]))
    joined = [np.concatenate(part) for part in zip(*found, strict=True)]
    return (*joined, np.full(len(joined[0]), 1 / max(1, len(joined[0]))))


def _grown(
    rows: Array, gain: Array, harm: Array, weight: Array, chosen: NDArray[np.bool_], seed: int
) -> tuple[Forest, Forest]:
    first, second = (
        grown(rows[chosen], target[chosen][:, None], weight[chosen], trees=TREES, leaf=LEAF, share=SHARE, seed=seed)
        for target in (gain, harm)
    )
    return first, second


def _choice(
    forests: Informed, examples: Examples, told: Predicted, task: int, began: tuple[Array, Array]
) -> tuple[float, bool] | None:
    """Returns the risk and the harm of what would be recommended of a task by its first seed; None where nothing is."""
    leads, levels = began[0][:, 0], began[1]
    rows = examples.rows(task)
    predicted = told.of(rows)
    found = forests.tried(
        predicted,
        predicted.worth(CAUTION),
        lambda place: float(leads[place]),
        float(levels[0]),
        own=0,
        count=USUAL,
        allowed=np.flatnonzero(np.isfinite(leads)).tolist(),
    )
    if found.answer == "keep":
        return None
    return found.harm[found.best], bool(examples.gain[rows][found.best] < -HARM)


def _rows(told: Predicted, leads: Array, level: float, places: Sequence[int] | NDArray[np.intp]) -> Array:
    """Returns the columns that are learned from, of the recipes at some places."""
    reach = (told.high - told.low) / 2
    before = np.stack([told.gain, reach, told.place, told.places.std(1), told.harm], axis=1)
    after = np.stack([np.clip(leads, -MOST_LEAD, MOST_LEAD), np.full(len(leads), level)], axis=1)
    return np.concatenate([before[np.asarray(places, dtype=int)], after], axis=1)
