"""Knowledge as examples to learn from: features of a task and of a recipe on it → how well that went."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from ..activations import Array
from ..judging.score import WORST_FINITE
from ..knowledge.features import FEATURES, Features, first_pass_features
from ..knowledge.tables import Knowledge, ProbeResult, StudiedTask
from ..recipes.recipe import OWN

SIZES = ("net_parameters", "net_weights", "net_fan_in", "data_size")
"""Told of a task, and not learned from: of a network larger than all studied ones they say that it is the largest."""
TASK_NAMES = tuple(name for name in FEATURES if not name.startswith(("init_", "zero_")) and name not in SIZES)
RECIPE_NAMES = tuple(name for name in FEATURES if name.startswith("init_"))
PASS_NAMES = tuple(name for name in FEATURES if name.startswith("zero_"))
NAMES = (*TASK_NAMES, *RECIPE_NAMES, *PASS_NAMES)
"""The columns; the last ones are known only where a recipe's weights were drawn and a batch was passed through them."""
BLIND = len(TASK_NAMES) + len(RECIPE_NAMES)
"""So many columns are known before that."""
OWN_COLUMN = NAMES.index("init_as_is")

WORST_OUTCOME = -3.0
"""A normalized outcome ends here: how much worse than as-is a recipe is matters little beyond."""
MOST_GAIN = 2.0
"""Nats at which a gain ends, either way."""
SMALLEST_SCALE = 0.02
"""Nats; below, differences are of no use to anybody."""
HARM = math.log(1.05)
"""Nats of loss above as-is from which a choice counts as harm."""


@dataclass(frozen=True)
class Results:
    """What came of every candidate of one task, on every seed.

    Attributes:
        task: as it was studied.
        keys: of the recipes, as-is first.
        seeds: in growing order.
        losses: [candidates, seeds], log-ratios of the held-back losses to the reference in nats; failed ones are at the
            worst there is.
        training: the same of the losses on the rows that were trained on.
        diverged: [candidates, seeds], where the training diverged or failed.
    """

    task: StudiedTask
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    losses: Array
    training: Array
    diverged: NDArray[np.bool_]

    @cached_property
    def noise(self) -> float:
        """Standard deviation of a candidate's loss over the seeds, of the median candidate; 0 with a single seed."""
        return noise_of(self.losses, self.diverged)

    def scale(self, seeds: Sequence[int] | None = None) -> float:
        """Returns what is to be won: as-is less the best candidate, or two standard deviations of a seed if more."""
        mean = self.mean(seeds)
        return max(float(mean[0] - mean.min()), 2 * self.noise, SMALLEST_SCALE)

    def mean(self, seeds: Sequence[int] | None = None) -> Array:
        """Returns the mean loss of every candidate over some seeds; None: over all."""
        places = [self.seeds.index(seed) for seed in (self.seeds if seeds is None else seeds)]
        return np.asarray(self.losses[:, places].mean(1))

    @property
    def harmed(self) -> NDArray[np.bool_]:
        """[candidates, seeds], where the loss is more than 5 % above as-is's."""
        return np.asarray(self.losses - self.losses[0] > HARM)

    def gains(self, seeds: Sequence[int] | None = None) -> Array:
        """Returns by how many nats each candidate is better than as-is."""
        mean = self.mean(seeds)
        return np.asarray(mean[0] - mean)


def noise_of(losses: Array, diverged: NDArray[np.bool_]) -> float:
    """Returns the standard deviation of a candidate's loss over the seeds, of the median candidate that trains.

    Args:
        losses: [candidates, seeds].
        diverged: [candidates, seeds].
    """
    calm = losses[~diverged.any(1)]
    return float(np.median(calm.std(axis=1, ddof=1))) if losses.shape[1] > 1 and len(calm) else 0.0


def results_of(task: StudiedTask) -> Results | None:
    """Returns the outcomes at the owner's learning rate of the candidates that every seed has; None without as-is.

    Args:
        task: whose probes of the commonest length are taken.
    """
    lengths = [one.steps for tried in task.tried for one in tried.outcomes if one.lr_step == 0]
    if not lengths or task.tried[0].recipe != OWN:
        return None
    steps = max(set(lengths), key=lengths.count)
    found = {
        tried.recipe.key: {one.seed: one for one in tried.outcomes if one.lr_step == 0 and one.steps == steps}
        for tried in task.tried
    }
    seeds = tuple(sorted(found[OWN.key]))
    keys = tuple(key for key, by_seed in found.items() if set(seeds) <= by_seed.keys())
    if not seeds or len(keys) < 2:
        return None
    probes = [[found[key][seed] for seed in seeds] for key in keys]
    held_back, training = ([[_loss(read(one)) for one in row] for row in probes] for read in _LOSSES)
    diverged = [[one.state != "complete" for one in row] for row in probes]
    return Results(task, keys, seeds, np.array(held_back), np.array(training), np.array(diverged))


_LOSSES: tuple[Callable[[ProbeResult], float | None], ...] = (attrgetter("loss"), attrgetter("trained"))


def _loss(value: float | None) -> float:
    return WORST_FINITE + 1.0 if value is None else value


@dataclass(frozen=True)
class Examples:
    """Rows to learn from: one for each candidate of each task.

    Attributes:
        results: of the tasks.
        features: [rows, `NAMES`]; NaN where one is unknown.
        task: [rows], which of the results each is of.
        keys: of the recipes.
        outcome: [rows], normalized: 0 as-is, 1 the best that there is where as-is is beaten.
        gain: [rows], nats by which it is better than as-is.
        place: [rows], share of the task's other candidates that it beats; a tie is half of one.
        harm: [rows], share of the seeds on which its loss is more than 5 % above as-is's.
        weight: [rows]; the tasks weigh alike.
    """

    results: tuple[Results, ...]
    features: Array
    task: NDArray[np.int64]
    keys: tuple[str, ...]
    outcome: Array
    gain: Array
    place: Array
    harm: Array
    weight: Array

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which rows are as-is."""
        return np.asarray(self.features[:, OWN_COLUMN] == 1)

    def of(self, tasks: Sequence[int]) -> Examples:
        """Returns the rows of some tasks."""
        chosen = np.isin(self.task, list(tasks))
        order = {task: place for place, task in enumerate(tasks)}
        return Examples(
            tuple(self.results[task] for task in tasks),
            self.features[chosen],
            np.array([order[task] for task in self.task[chosen]]),
            tuple(key for key, keep in zip(self.keys, chosen, strict=True) if keep),
            self.outcome[chosen],
            self.gain[chosen],
            self.place[chosen],
            self.harm[chosen],
            self.weight[chosen],
        )

    def rows(self, task: int) -> slice:
        """Returns where a task's rows stand."""
        first, last = np.searchsorted(self.task, [task, task + 1])
        return slice(int(first), int(last))


def examples_of(knowledge: Knowledge) -> Examples:
    """Returns the examples of all tasks that have as-is and another candidate."""
    results = tuple(found for task in knowledge.tasks if (found := results_of(task)) is not None)
    gained = [found.gains() for found in results]
    scaled = [gains / found.scale() for found, gains in zip(results, gained, strict=True)]
    counts = [len(found.keys) for found in results]
    return Examples(
        results,
        np.concatenate([np.empty((0, len(NAMES))), *(_features(found) for found in results)]),
        np.repeat(np.arange(len(results)), counts),
        tuple(key for found in results for key in found.keys),
        _joined(np.clip(outcomes, WORST_OUTCOME, 1.0) for outcomes in scaled),
        _joined(np.clip(gains, -MOST_GAIN, MOST_GAIN) for gains in gained),
        _joined(_places(gains) for gains in gained),
        _joined(found.harmed.mean(1) for found in results),
        _joined(np.full(count, 1 / count) for count in counts),
    )


def _joined(parts: Iterable[Array]) -> Array:
    return np.concatenate([np.empty(0), *parts])


def _places(gains: Array) -> Array:
    """Returns the share of the other candidates that each is better than; a tie is half of one."""
    beaten = (gains[:, None] > gains).sum(1) + ((gains[:, None] == gains).sum(1) - 1) / 2
    return np.asarray(beaten / (len(gains) - 1))


def _features(found: Results) -> Array:
    """Returns a row for each candidate; what a first pass told is of the first seed, as a person has one draw."""
    by_key = {tried.recipe.key: tried for tried in found.task.tried}
    reference = found.task.features.get("data_reference")
    recipes = []
    for key in found.keys:
        first = next(one for one in by_key[key].outcomes if one.lr_step == 0 and one.seed == found.seeds[0])
        recipes.append({**by_key[key].features, **first_pass_features(*first.zero, reference)})
    return matrix(found.task.features, recipes)


def matrix(task: Mapping[str, float], recipes: Sequence[Features]) -> Array:
    """Returns one row of numbers for each recipe on a task, in the order of `NAMES`; NaN for what is unknown."""
    known = [float(task.get(name, float("nan"))) for name in TASK_NAMES]
    of_recipes = (*RECIPE_NAMES, *PASS_NAMES)
    rows = [[*known, *(float(recipe.get(name, float("nan"))) for name in of_recipes)] for recipe in recipes]
    return np.array(rows, dtype=np.float64).reshape(len(recipes), len(NAMES))
