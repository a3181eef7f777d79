"""Plain random search over `select`'s own space: what its openings, proposals, halving and gate stand against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from autoinit.recipes.space import random_recipes

from ...common.tasks import BenchTask
from ..equal_cost import search_steps
from .cost import FORWARD, Start

PROBE_STEPS = 60
"""Steps of each probe; ten candidates of the least budget."""


@dataclass
class Spending:
    """Training steps spent so far, in the manner of the library's own count."""

    steps: float = 0.0

    def spend(self, *, steps: float = 0.0, forwards: float = 0.0) -> None:
        """Counts training steps and forward passes."""
        self.steps += steps + forwards * FORWARD


def prepare(model: nn.Module, task: BenchTask, seed: int, budget: str) -> Start:
    """Sets the weights of the best of as many random points as the budget pays for.

    Args:
        model: as its owner draws it.
        task: to probe on.
        seed: of the points, the draws and the batch order.
        budget: the name of one of `equal_cost.SHARES`.
    """
    return search(model, task, seed, search_steps(task, budget))


def search(model: nn.Module, task: BenchTask, seed: int, budget: float) -> Start:
    """The same for a budget in steps. A probe starts as long as the budget still pays for one of its length."""
    from autoinit.apply import apply_plan, realize
    from autoinit.calibrations.subject import Subject
    from autoinit.judging.score import Reference, score
    from autoinit.plans.rules import resolve
    from autoinit.probing.probe import probe
    from autoinit.recipes.space import space_of
    from autoinit.task.task import make_task
    from autoinit.tracing.choices import keep_choices
    from autoinit.tracing.tracing import trace_task

    made = make_task(model, task.train_batches(seed), loss=task.loss, optimizer=task.optimizer, seed=seed)
    graph = keep_choices(made.model, trace_task(made))
    points = random_recipes(space_of(graph, lr_searched=False, allowance=budget), int(budget) // PROBE_STEPS, seed)
    evaluation = FORWARD * len(made.probe_eval)
    spending, tried = Spending(), 0
    best: tuple[float, Any] | None = None
    notes = []
    with made.preserved() as snapshot:
        for recipe in points:
            if spending.steps + PROBE_STEPS + evaluation > budget:
                break
            tried += 1
            try:
                snapshot.rewind()
                subject = Subject(made, graph, seed=seed, spend=spending.spend)
                plan = realize(subject, resolve(recipe, graph, seed=seed), snapshot.rewind)
                curve = probe(made, steps=PROBE_STEPS, seed=seed, held_back=made.probe_eval)
            except Exception as error:  # a point that cannot be drawn or trained is a bad one, as in any search
                notes.append(f"{recipe.key}: {type(error).__name__}")
                continue
            spending.spend(steps=curve.steps, forwards=len(made.probe_eval) * len(curve.held_back))
            total = score(curve, Reference.of(made.reference, curve.losses), PROBE_STEPS).total
            if best is None or total < best[0]:
                best = total, plan
    if best is None:
        raise RuntimeError(f"none of {tried} random points could be trained: {'; '.join(notes[:3])}")
    apply_plan(made.model, best[1])
    return Start(spending.steps, "counted", best[1].recipe.key, notes=(f"{tried} points", *notes[:3]))
