"""The library's own: one recipe without a search, and `select` with a budget."""

from __future__ import annotations

from torch import nn

from ..equal_cost import search_steps
from ..tasks import BenchTask
from .cost import Start, counted


def single(model: nn.Module, task: BenchTask, seed: int, name: str) -> Start:
    """Sets the weights of one named recipe; its passes over the data are counted, the tracing's one too."""
    import autoinit

    with counted(model, task.rows) as passes:
        autoinit.apply_(model, name, task.train_batches(seed), loss=task.loss, seed=seed)
    return Start(passes.steps, "counted", name)


def selected(model: nn.Module, task: BenchTask, seed: int, budget: str) -> Start:
    """Sets the weights that `select` chooses; its cost is what it reports.

    Args:
        model: as its owner draws it.
        task: whose optimizer, and rate, it searches with.
        seed: of the search.
        budget: the name of one of `equal_cost.SHARES`.
    """
    import autoinit

    selection = autoinit.select(
        model,
        task.train_batches(seed),
        loss=task.loss,
        optimizer=task.optimizer,
        budget=autoinit.Budget(steps=search_steps(task, budget)),
        seed=seed,
        progress=False,
        concurrency=1,  # its workers share the cores with other jobs
    )
    notes = (f"kept: {selection.why}",) if selection.kept else ()
    return Start(selection.cost.steps, "reported", selection.recipe.key, selection.kept, notes)
