"""The library's own: one recipe without a search, the one that it recommends, and `select` with a budget."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from torch import nn

from ...common.tasks import BenchTask
from ..equal_cost import search_steps
from ..tasks import FAMILIES
from .cost import Start, counted

if TYPE_CHECKING:
    from autoinit import Recommender


def single(model: nn.Module, task: BenchTask, seed: int, name: str) -> Start:
    """Sets the weights of one named recipe; its passes over the data are counted, the tracing's one too."""
    import autoinit

    with counted(model, task.rows) as passes:
        autoinit.apply_(model, name, task.train_batches(seed), loss=task.loss, seed=seed)
    return Start(passes.steps, "counted", name)


@functools.cache
def blind(families: frozenset[str]) -> Recommender:
    """Returns the library's recommender, fitted to the shipped knowledge less some families; seconds, once a process.

    Args:
        families: of architectures, of which it must not know anything.
    """
    from autoinit import Recommender
    from autoinit.knowledge.files import shipped
    from autoinit.knowledge.tables import Knowledge

    known = shipped()
    return Recommender.fit(Knowledge(tuple(task for task in known.tasks if task.family not in families), known.made))


def recommended(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets the weights of the recipe that is recommended by what was studied of other families; none where none is.

    Its passes over the data are counted: those of a calibration, and the tracing's one.

    Args:
        model: as its owner draws it.
        task: whose families of `FAMILIES` the recommender has not seen.
        seed: of the draw.
    """
    import autoinit

    data, known = task.train_batches(seed), blind(FAMILIES[task.name])
    with counted(model, task.rows) as passes:
        found = autoinit.recommend(model, data, loss=task.loss, optimizer=task.optimizer, recommender=known)
        if not found.abstained:
            autoinit.apply_(model, found.best, data, loss=task.loss, seed=seed)
    notes = (f"kept: {found.why}",) if found.abstained else ()
    return Start(passes.steps, "counted", found.best.key, found.abstained, notes)


def selected(model: nn.Module, task: BenchTask, seed: int, budget: str) -> Start:
    """Sets the weights that `select` chooses; its cost is what it reports.

    Args:
        model: as its owner draws it.
        task: whose optimizer, and rate, it searches with; the recommender that it begins by has not seen its families.
        seed: of the search.
        budget: the name of one of `equal_cost.SHARES`.
    """
    return _chosen(model, task, seed, search_steps(task, budget))


QUICK_STEPS = 160
"""About the least that `select` searches with."""


def quickly_selected(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets the weights that the shortest search chooses."""
    return _chosen(model, task, seed, QUICK_STEPS)


def _chosen(model: nn.Module, task: BenchTask, seed: int, steps: int) -> Start:
    import autoinit

    selection = autoinit.select(
        model,
        task.train_batches(seed),
        loss=task.loss,
        optimizer=task.optimizer,
        budget=autoinit.Budget(steps=steps),
        training_steps=task.steps,
        seed=seed,
        progress=False,
        concurrency=1,  # its workers share the cores with other jobs
        recommender=blind(FAMILIES[task.name]),
    )
    notes = (f"kept: {selection.why}",) if selection.kept else ()
    return Start(selection.cost.steps, "reported", selection.recipe.key, selection.kept, notes)
