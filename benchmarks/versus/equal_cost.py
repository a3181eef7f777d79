"""The accounting of the side-by-side benchmark: what each method may spend, and how long it may train for the rest.

The unit is a training step of the task: forward, backward, optimizer. An allowance pays for everything, finding the
weights and training from them: it is the task's long training and a search's budget together. A method whose weights
took c steps trains for what is left of it. Where nothing is left, it has failed.
"""

from __future__ import annotations

import math

from ..common.tasks import BenchTask

SHARES: dict[str, float] = {"small": 1.0, "middle": 2.0, "large": 4.0}
"""The three budgets of a search, as shares of the task's steps; in the order of their size."""
LEAST = 600
"""Steps of the least of the three."""
APART = "apart"
"""Beside the allowances: every method trains for the task's long training alone, whatever its weights took."""


def long_steps(task: BenchTask, stretch: float = 1.0) -> int:
    """Returns the steps of the long training, `stretch` times the task's own."""
    return round(task.steps * stretch)


def search_steps(task: BenchTask, budget: str) -> int:
    """Returns the steps of one of the three search budgets; the length of the long training does not change them."""
    return max(LEAST, round(SHARES[budget] * task.steps))


def allowance(task: BenchTask, budget: str, stretch: float = 1.0) -> int:
    """Returns the whole cost that a method may have: long training and search budget."""
    return long_steps(task, stretch) + search_steps(task, budget)


def horizon(task: BenchTask, place: str, cost: float, stretch: float = 1.0) -> int | None:
    """Returns the training steps that are left of an allowance; None where there is not one.

    Args:
        task: whose steps are counted.
        place: "small", "middle" or "large"; `APART` counts no cost.
        cost: of finding the weights, in steps.
        stretch: of the long training.
    """
    if place == APART:
        return long_steps(task, stretch)
    left = math.floor(allowance(task, place, stretch) - cost)
    return left if left >= 1 else None


def places_up_to(reach: str) -> tuple[str, ...]:
    """Returns `APART` and the allowances up to this one."""
    names = tuple(SHARES)
    return (APART, *names[: names.index(reach) + 1])
