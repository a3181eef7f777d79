"""Recipes trained for a few steps beside the owner's weights, on the same batches; the model is put back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from ..graph import Graph
from ..judging.trials import Candidate, Job
from ..recipes.recipe import OWN, Recipe
from ..seeds import seed_of_use
from ..task.task import Task
from .bench import Bench

WORST = 2.0
"""Nats at which a lead ends, either way; of a training that diverged or failed it is this."""


class Beside:
    """Short trainings of recipes, each compared with one of the owner's weights.

    Attributes:
        own: log of the held-back loss that the owner's weights come to; NaN where that is no number above 0.
    """

    def __init__(self, bench: Bench, steps: int) -> None:
        self._bench = bench
        self._steps = steps
        self._number = 0
        self.own = self._log_loss(OWN)

    def lead(self, recipe: Recipe) -> float:
        """Returns by how many nats a recipe's held-back loss is lower than the owner's, within ± `WORST`.

        Args:
            recipe: that fits the network.
        """
        theirs = self._log_loss(recipe)
        if math.isnan(theirs):
            return -WORST
        return WORST if math.isnan(self.own) else min(WORST, max(-WORST, self.own - theirs))

    def _log_loss(self, recipe: Recipe) -> float:
        """Returns the log of the held-back loss after the steps; NaN of a training that came to no number above 0."""
        seed = seed_of_use(self._bench.seed, "beside")
        job = Job(self._number, "search", Candidate(recipe), seed, self._steps)
        self._number += 1
        curve = self._bench.perform(job, lambda curve: True).curve
        if curve is None or curve.diverged_at is not None or not curve.held_back:
            return math.nan
        loss = curve.held_back[-1][1]
        return math.log(loss) if math.isfinite(loss) and loss > 0 else math.nan


@contextmanager
def beside(task: Task, graph: Graph, *, steps: int, seed: int = 0) -> Iterator[Beside]:
    """Yields short trainings of a task; its model is as it was when they are over.

    Args:
        task: with a model that has weights.
        graph: its architecture.
        steps: of each training.
        seed: of the draws and of the order of the batches.
    """
    with task.preserved() as snapshot:
        yield Beside(Bench(task, graph, snapshot, seed), steps)
