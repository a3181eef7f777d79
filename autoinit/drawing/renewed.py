"""Stale weights as a candidate: the model's own trained ones, mixed with what a fresh start would draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..graph import Graph
from ..inheritance.given import Given
from ..inheritance.values import HeldValues
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..plans.rules import resolve
from ..recipes.recipe import Recipe
from ..renewal.dormant import find_dormant, renew_dormant
from ..renewal.renewal import shrink_and_perturb
from ..task.assign import read
from ..task.task import Task
from .memory import Memory
from .weights import set_weights

SHRINK = PERTURB = 0.4
"""Shares of the trained values and of the draw."""
THRESHOLD = 0.025
"""Activity, relative to the mean of its layer, up to which a unit is dormant (Sokar et al. 2023)."""
BATCHES = 8
"""Batches on which the activity of units is measured."""


def renewed(
    task: Task,
    plan: Plan,
    graph: Graph,
    rewind: Callable[[], None],
    *,
    seed: int,
    spend: Callable[..., None],
    memory: Memory | None = None,
) -> Plan:
    """Returns a plan with the values of weights that are brought back.

    Args:
        task: whose model holds its trained weights, and holds them again afterwards.
        plan: of a recipe that renews.
        graph: of the model.
        rewind: puts the trained weights back after a draw.
        seed: of the order of the batches that activities are measured on.
        spend: told the forward passes of that.
        memory: of costly draws.
    """
    graph = graph.stale()
    fresh = dataclasses.replace(resolve(_anew(plan), graph, seed=plan.seed), drawn_on=plan.drawn_on)
    set_weights(task.model, fresh, memory)
    with torch.no_grad():
        draw = {name: read(task.model, name).detach().clone() for name in graph}
    rewind()
    if plan.recipe.renewal == "redo":
        spend(forwards=BATCHES)
        dormant = find_dormant(task.model, graph, list(task.order(seed, BATCHES)), threshold=THRESHOLD)
        return _whole(task, plan, renew_dormant(task.model, graph, dormant, draw).given)
    kept = {fill.name: fill.reason for fill in plan.fills if fill.distribution != "given"}
    found = shrink_and_perturb(task.model, draw, graph.keeping(kept), shrink=SHRINK, perturb=PERTURB)
    return _whole(task, plan, found)


def _anew(plan: Plan) -> Recipe:
    return dataclasses.replace(plan.recipe, renewal="none")


def _whole(task: Task, plan: Plan, found: Given) -> Plan:
    """Returns the plan with what was found; what nothing was found for stays as it is."""
    fills = tuple(_filled(fill, found) for fill in plan.fills)
    buffers = tuple(name for name, _ in task.model.named_buffers() if name in found.values)
    given = HeldValues.of({name: value for name, value in found.values.items() if name in buffers or name in plan})
    notes = (*plan.notes, *found.notes)
    return dataclasses.replace(plan, fills=fills, given=given, buffers=buffers, notes=notes, base="trained")


def _filled(fill: Fill, found: Given) -> Fill:
    if fill.name in found.values and not fill.copy_of:
        return dataclasses.replace(found.told(fill), distribution="given")
    if fill.distribution == "given":
        return dataclasses.replace(fill, distribution="keep", reason="trained; no unit of it is dormant")
    return fill
