"""A new head in closed form, on the features that a body has for some batches once everything else is set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from ..errors import ArgumentError, CalibrationError, DataError, ModelError
from ..inheritance.heads import class_means
from ..inheritance.values import HeldValues
from ..plans.fill import Fill
from ..plans.inherited import is_closed
from ..plans.plan import Plan
from ..task.assign import assign_all
from ..task.batches import Batch, rows
from .subject import Subject

ROWS, PASSES = 1024, 64
"""Rows that the features are taken of, or the batches where they are small."""


def head_names(plan: Plan, subject: Subject) -> frozenset[str]:
    """Returns the parameters of a plan's head that are to be worked out from features."""
    waiting = (fill.name for fill in plan.fills if fill.distribution == "given")
    return frozenset(name for name in waiting if is_closed(subject.graph[name], plan.recipe, subject.graph))


def without_head(plan: Plan, names: frozenset[str]) -> Plan:
    """Returns the plan in which a head stays as it is, so that everything else can be set."""
    fills = (dataclasses.replace(fill, distribution="keep") if fill.name in names else fill for fill in plan.fills)
    return dataclasses.replace(plan, fills=tuple(fills))


def with_head(subject: Subject, plan: Plan, names: frozenset[str]) -> Plan:
    """Sets a head from the features of a model whose other weights are set, and returns the plan with it.

    Args:
        subject: the model and its data.
        plan: in which the head stays.
        names: of the head's parameters.

    Raises:
        CalibrationError: the head's features cannot be taken, or the labels are no classes of it.
    """
    weight = next(name for name in names if subject.graph[name].role == "output")
    try:
        found = class_means(subject.model, _batches(subject), weight.rpartition(".")[0])
    except (ArgumentError, DataError, ModelError) as problem:
        raise CalibrationError(f"No head can be made from class means here: {problem}") from problem
    assign_all(subject.model, found.values)
    tensors = {name: plan.given.tensor(name) for name in _given(plan)} if plan.given else {}
    fills = tuple(_filled(fill, found.why) if fill.name in names else fill for fill in plan.fills)
    given = HeldValues.of(tensors | dict(found.values))
    return dataclasses.replace(plan, fills=fills, given=given, notes=(*plan.notes, *found.notes))


def _filled(fill: Fill, why: Mapping[str, str]) -> Fill:
    return dataclasses.replace(fill, distribution="given", reason=why[fill.name])


def _given(plan: Plan) -> list[str]:
    return [*(fill.name for fill in plan.fills if fill.distribution == "given"), *plan.buffers]


def _batches(subject: Subject) -> Iterator[Batch]:
    seen = 0
    for batch in subject.batches(PASSES):
        yield batch
        subject.spend(forwards=1)
        seen += rows(batch)
        if seen >= ROWS:
            return
