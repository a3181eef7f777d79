"""A trained network as the source of candidates: which ways of growing fit it, and plans with what they give."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ..errors import ArgumentError, SourceError
from ..graph import Graph
from ..inheritance.given import Given
from ..inheritance.values import HeldValues
from ..plans.plan import Plan
from ..task.task import Task, Trained
from .growth import growth
from .methods import METHODS


def with_source(task: Task, graph: Graph, source: Trained) -> Graph:
    """Returns the graph of a model that may take after a trained network, and has the task know that.

    Every way is tried, on paper: those that fit are `Graph.grows`, of several that give the same values the first one.

    Args:
        task: of the model.
        graph: of the model, with what must stay.
        source: the trained network.

    Raises:
        SourceError: it is of another architecture, or of the same size.
    """
    fitting: dict[str, Given] = {}
    problem: SourceError | None = None
    for name in METHODS:
        try:
            found = growth(task.model, source.weights, name, graph, source_graph=source.graph)
        except SourceError as refused:
            problem = problem or refused
            continue
        if not any(_alike(found, other) for other in fitting.values()):
            fitting[name] = found
    if not fitting:
        raise problem or SourceError("Nothing of the source fits the model.")
    names = {name for found in fitting.values() for name in found.values}
    task.source = source
    layers = (dataclasses.replace(one, inherits=one.name in names and not one.keep) for one in graph.layers)
    return dataclasses.replace(graph, layers=tuple(layers), grows=tuple(fitting))


def _alike(found: Given, other: Given) -> bool:
    mine, theirs = found.values, other.values
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def grown(model: nn.Module, plan: Plan, source: Trained | None, graph: Graph) -> Plan:
    """Returns a plan with the values that a trained network gives.

    Args:
        model: with its owner's weights in place; it is only read.
        plan: whose recipe grows.
        source: the trained network.
        graph: of the model.

    Raises:
        ArgumentError: there is no source.
        SourceError: it does not fit.
    """
    if source is None:
        raise ArgumentError("There is no trained network. Call inherit_(model, source), or select(…, source=…).")
    found = growth(model, source.weights, plan.recipe.growth, graph, seed=plan.seed, source_graph=source.graph)
    fills = tuple(found.told(fill) if fill.distribution == "given" else fill for fill in plan.fills)
    return carried(dataclasses.replace(plan, fills=fills), model, found)


def carried(plan: Plan, model: nn.Module, found: Given) -> Plan:
    """Returns a plan with what a trained network gives: its values, its buffers and its notes.

    Args:
        plan: that names what is given.
        model: whose buffers they are.
        found: by `growth`.
    """
    buffers = tuple(name for name, _ in model.named_buffers() if name in found.values)
    held, notes = HeldValues.of(found.values), (*plan.notes, *found.notes)
    return dataclasses.replace(plan, given=held, buffers=buffers, notes=notes, base="trained")
