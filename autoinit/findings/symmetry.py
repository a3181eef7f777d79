"""Units that start equal and never differ, and weights that are constant on purpose."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..graph import Graph, Layer
from ..probing.twins import Twins, find_twins
from ..task.assign import read
from ..task.task import Task
from ..text import few
from .finding import Finding
from .remedies import drawn_anew


def symmetry(task: Task, graph: Graph) -> Iterator[Finding]:
    """Yields layers whose units get the same gradient, and, as a note, constant weights whose units do not."""
    twins = find_twins(task, graph)
    constant = [layer.name for layer in graph.weights if layer.size > 1 and _is_constant(task.model, layer)]
    whole = [one for one in twins if one.whole]
    if names := [one.name for one in whole if one.name in constant]:
        yield _error(
            task,
            graph,
            f"all values are equal in {few(names)}, so its units get the same gradient and never differ",
            names,
        )
    for one in whole:
        if one.name not in constant:
            said = (
                f"the {one.all_units} units of {one.name} start equal and get the same gradient, so they never differ"
            )
            yield _error(task, graph, said, [one.name])
    yield from (_partly(task, graph, one) for one in twins if not one.whole)
    on_purpose = [name for name in constant if name not in {one.name for one in whole}]
    if zero := [name for name in on_purpose if not read(task.model, name).any()]:
        yield Finding(
            "note",
            f"{few(zero)} {_starts(zero)} at a constant, as zero-initialized residual branches and heads do",
            "nothing, if that is meant: what lies before it gets its first gradient after one step",
        )
    if other := [name for name in on_purpose if name not in zero]:
        yield Finding(
            "note",
            f"{few(other)} {_starts(other)} at one number throughout, so that units weigh all their inputs alike",
            f"nothing, if that is meant, else draw it at random: {drawn_anew(task.model, graph, other)}",
        )


def _starts(names: list[str]) -> str:
    return "starts" if len(names) == 1 else "start"


def _is_constant(model: nn.Module, layer: Layer) -> bool:
    with torch.no_grad():
        weight = read(model, layer.name)
        return bool((weight == weight.flatten()[0]).all())


def _error(task: Task, graph: Graph, text: str, names: list[str]) -> Finding:
    return Finding("error", text, f"draw them at random: {drawn_anew(task.model, graph, names)}")


def _partly(task: Task, graph: Graph, twins: Twins) -> Finding:
    return Finding(
        "warning",
        f"{twins.units} of {twins.all_units} units of {twins.name} are equal to another one and get the same gradient, "
        "so they never differ",
        f"draw them at random: {drawn_anew(task.model, graph, [twins.name])}",
    )
