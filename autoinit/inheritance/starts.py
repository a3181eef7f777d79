"""What a plan's recipe asks of trained weights and data becomes values: the plan is whole afterwards."""

from __future__ import annotations

import dataclasses
from typing import cast

from torch import nn

from ..errors import RecipeError
from ..graph import Graph
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..recipes.adapters import ADAPTER_ROWS
from ..recipes.inherited import CLOSED_HEADS
from ..recipes.recipe import Recipe
from ..task.assign import digest, read
from .adapters import Watched, started
from .given import Given
from .pairs import find_pairs
from .row_fills import RowMethod
from .rows import new_rows
from .values import HeldValues

HALF = "In half precision what was taken from a weight is rounded: the output moves by about that rounding."


def needs_data(recipe: Recipe) -> bool:
    """Whether values of a recipe that no formula gives are measured on batches."""
    row = ADAPTER_ROWS.get(recipe.adapter)
    return (row is not None and bool(row.watches)) or recipe.renewal != "none" or recipe.head in CLOSED_HEADS


def worked_out(model: nn.Module, plan: Plan, graph: Graph, seen: Watched | None = None) -> Plan:
    """Returns a plan with the values that no formula gives, made from a model's own weights and its data.

    Nothing of the model is changed, but for what passes over the data leave in it: the caller puts that back.

    Args:
        model: with its owner's weights in place.
        plan: as `resolve` made it; one that has nothing to work out is returned as it is.
        graph: of the model.
        seen: what is measured on; None where there are no data.

    Raises:
        RecipeError: the start asks for data and there are none, or is for other ranks, shapes or weights.
        CalibrationError: a weight was not used by the data.
    """
    if not plan.pending:
        return plan
    if seen is None and needs_data(plan.recipe):
        raise RecipeError(f"Recipe {plan.recipe.key!r} is measured on data. Pass data=, batches or one example input.")
    found = Given({}, {})
    if plan.recipe.adapter != "same":
        chosen = {fill.name for fill in plan.fills if fill.distribution == "given"}
        pairs = [pair for pair in find_pairs(model) if pair.up in chosen]
        found = started(model, pairs, plan.recipe.adapter, plan.seed, seen)
    if plan.recipe.rows != "same":
        found = found.beside(_rows(model, plan, graph))
    return _whole(model, plan, found)


def _rows(model: nn.Module, plan: Plan, graph: Graph) -> Given:
    """Returns what tables get that have more rows than their checkpoint, and the biases of heads with them."""
    found = Given({}, {})
    for layer in graph.layers:
        if layer.new_rows and layer.role != "bias":
            new = slice(layer.new_rows, None)
            found = found.beside(
                new_rows(model, method=cast(RowMethod, plan.recipe.rows), rows=new, tables=layer.name, seed=plan.seed)
            )
    return found


def _whole(model: nn.Module, plan: Plan, found: Given) -> Plan:
    fills = tuple(_with_origin(model, fill, found) for fill in plan.fills)
    taken = [fill.name for fill in fills if fill.distribution == "remainder"]
    half = any(model.get_parameter(name).element_size() < 4 for name in taken)
    notes = (*plan.notes, *found.notes, *[HALF] * half)
    return dataclasses.replace(plan, fills=fills, notes=notes, given=HeldValues.of(found.values))


def _with_origin(model: nn.Module, fill: Fill, found: Given) -> Fill:
    """Returns a fill with the reason that was found for it, or with the fingerprint of what is taken from."""
    if fill.distribution == "remainder":
        return dataclasses.replace(fill, origin=digest(read(model, fill.name)))
    return found.told(fill)
