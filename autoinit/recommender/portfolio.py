"""A static portfolio: recipes that together do well on all studied tasks, whatever the task at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..recipes.recipe import OWN
from .examples import Examples

SUPPORT = 0.3
"""Share of the tasks that a recipe must have been tried on: random points of one task say nothing of another."""


def portfolio(examples: Examples, size: int) -> tuple[str, ...]:
    """Returns recipes by their keys, chosen greedily: each adds most to the mean over tasks of the best outcome.

    As-is is always at hand: a recipe that does harm, or does not fit, adds nothing to a task.

    Args:
        examples: to choose by.
        size: how many at most; fewer where no other one adds anything.
    """
    keys = common_keys(examples)
    table = _outcomes(examples, keys)
    chosen: list[int] = []
    reached = np.zeros(len(examples.results))
    while len(chosen) < min(size, len(keys)):
        added = np.maximum(table, reached).mean(1) - reached.mean()
        added[chosen] = 0.0
        best = int(added.argmax())
        if added[best] <= 0:
            break
        chosen.append(best)
        reached = np.maximum(reached, table[best])
    return tuple(keys[place] for place in chosen)


def single_best(examples: Examples) -> str:
    """Returns the recipe with the best mean outcome over all tasks; as-is where none is better."""
    keys = common_keys(examples)
    means = _outcomes(examples, keys).mean(1) if keys else np.empty(0)
    return keys[int(means.argmax())] if len(means) and means.max() > 0 else OWN.key


def common_keys(examples: Examples) -> list[str]:
    """Returns the recipes beside as-is that were tried on enough tasks, in the order of their first one."""
    counts = Counter(examples.keys)
    least = SUPPORT * len(examples.results)
    return [key for key, count in counts.items() if count >= least and key != OWN.key]


def _outcomes(examples: Examples, keys: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Returns the outcome of each recipe on each task; 0, that of as-is, where it was not tried."""
    place = {key: number for number, key in enumerate(keys)}
    table = np.zeros((len(keys), len(examples.results)))
    for key, task, outcome in zip(examples.keys, examples.task, examples.outcome, strict=True):
        if key in place:
            table[place[key], task] = outcome
    return table
