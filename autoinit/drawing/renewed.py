"""Stale weights as a candidate: the model's own trained ones, mixed with what a fresh start would draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..graph import Graph
from ..growth.sources import carried
from ..inheritance.given import Given
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..plans.rules import resolve
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
    fresh = resolve(dataclasses.replace(plan.recipe, renewal="none"), graph, seed=plan.seed)
    set_weights(task.model, dataclasses.replace(fresh, drawn_on=plan.drawn_on), memory)
    with torch.no_grad():
        draw = {name: read(task.model, name).detach().clone() for name in graph}
    rewind()
    if plan.recipe.renewal == "redo":
        spend(forwards=BATCHES)
        dormant = find_dormant(task.model, graph, list(task.order(seed, BATCHES)), threshold=THRESHOLD)
        found = renew_dormant(task.model, graph, dormant, draw).given
    else:
        found = _shrunk(task, plan, graph, draw)
    fills = tuple(_filled(fill, found) for fill in plan.fills)
    return carried(dataclasses.replace(plan, fills=fills), task.model, found)


def _shrunk(task: Task, plan: Plan, graph: Graph, draw: Mapping[str, Tensor]) -> Given:
    """Returns shrunk and perturbed values of all but what a fresh start keeps."""
    kept = {fill.name: fill.reason for fill in plan.fills if fill.distribution != "given"}
    return shrink_and_perturb(task.model, draw, graph.keeping(kept), shrink=SHRINK, perturb=PERTURB)


def _filled(fill: Fill, found: Given) -> Fill:
    if fill.name in found.values and not fill.copy_of:
        return dataclasses.replace(found.told(fill), distribution="given")
    if fill.distribution == "given":
        return dataclasses.replace(fill, distribution="keep", reason="trained; no unit of it is dormant")
    return fill
