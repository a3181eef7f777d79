"""Units that no training tells apart: equal weights, and equal gradients, step after step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import USER_ERRORS
from ..graph import Graph, Layer
from ..task.assign import is_parametrized, read
from ..task.machine import OUT_OF_MEMORY
from ..task.task import Task

STEPS = 4
"""Steps after which zeros in series (a head, a gate, an adapter) have let a gradient pass to all behind them."""
STRIDE = 0.01
"""Root mean square by which such a step moves each parameter: far above rounding, and far below the weights."""
ROUNDING, HALF_ROUNDING = 1e-4, 3e-2
"""Share of a gradient by which equal ones may differ: sums in another order; in half precision."""
EQUAL = 1e-12
"""The same of weights, whose sums are taken in double precision."""
SUMS = 8
"""Weighted sums of its entries that stand for a row."""
CHUNK = 1 << 22
"""Entries that are summed up at a time."""
_TOLD_APART_LATER = ("output", "router")
"""Roles of units that labels or rows tell apart which this batch may not hold."""


@dataclass(frozen=True, slots=True)
class Twins:
    """Units of one matrix that start equal and stay so.

    Attributes:
        name: of the matrix.
        units: how many are equal to another one.
        all_units: how many there are.
        whole: whether all of them are equal to one another.
    """

    name: str
    units: int
    all_units: int
    whole: bool


def find_twins(task: Task, graph: Graph) -> list[Twins]:
    """Returns the matrices with units that training never tells apart, in the order of the graph.

    Two such units have equal weights and biases, and get equal gradients. Where these are zero (behind a head or a gate
    of zeros) a few small steps along the gradient show what comes of them; equal gradients keep equal units equal. The
    model is put back.
    """
    model, groups = task.model, _equal_rows(task.model, graph)
    if not groups:
        return []
    moved = {name: torch.zeros(len(labels), dtype=torch.bool) for name, labels in groups.items()}
    with task.preserved():
        model.train()
        for step in range(STEPS + 1):
            gradients = _gradients(task, graph, groups) if step == 0 else _gradients_after_a_step(task, graph, groups)
            if gradients is None:
                break
            groups = {
                name: _refined(groups[name], _sums(rows), _rounding(task, rows)) for name, rows in gradients.items()
            }
            for name, rows in gradients.items():
                moved[name] |= rows.any(dim=1).cpu()
            if all(bool(moved[name].all()) for name in groups):
                break
    found = (_twins(name, labels, moved[name]) for name, labels in groups.items())
    return [twins for twins in found if twins is not None]


def _equal_rows(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Returns, of each matrix with units of equal weights and biases, a number for each unit, equal for equal ones."""
    found = {}
    for layer in graph.layers:
        if not layer.is_matrix or layer.role in _TOLD_APART_LATER or is_parametrized(model, layer.name):
            continue
        with torch.no_grad():
            rows = _units(layer, model.get_parameter(layer.name))
            biases = (bias for bias in _biases(model, graph, layer) if len(bias) == len(rows))
            sums = torch.cat([_sums(rows), *(bias[:, None].double().cpu() for bias in biases)], dim=1)
        labels = _refined(torch.zeros(len(sums), dtype=torch.int64), sums, EQUAL)
        if int(labels.max()) + 1 < len(labels):
            found[layer.name] = labels
    return found


def _units(layer: Layer, weight: Tensor) -> Tensor:
    """Returns a matrix, or its gradient, as [units, entries]."""
    rest = [axis for axis in range(weight.dim()) if axis not in layer.in_axes]
    rows = weight.detach().permute(*rest, *layer.in_axes)
    rows = torch.view_as_real(rows) if rows.is_complex() else rows
    return rows.flatten(0, len(rest) - 1).flatten(1) if rest else rows.reshape(1, -1)


def _biases(model: nn.Module, graph: Graph, layer: Layer) -> list[Tensor]:
    names = [one.name for one in graph.layers if one.role == "bias" and one.of == layer.name]
    return [read(model, name).detach().flatten() for name in names]


def _sums(rows: Tensor) -> Tensor:
    """Returns a few numbers for each row, on the host: sums of its entries times numbers alike for every row."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(rows.shape[1], SUMS, generator=generator, dtype=torch.float64).to(rows.device)
    parts = torch.split(rows, max(1, CHUNK // max(1, rows.shape[1])))
    return torch.cat([part.double() @ factors for part in parts]).cpu()


def _gradients(task: Task, graph: Graph, names: Iterable[str]) -> dict[str, Tensor]:
    """Returns the gradients of these matrices, as far as any arrives, as [units, entries]."""
    task.model.zero_grad(set_to_none=True)
    task.backward(task.train[0])
    found = {name: task.model.get_parameter(name).grad for name in names}
    return {name: _units(graph[name], gradient) for name, gradient in found.items() if gradient is not None}


def _gradients_after_a_step(task: Task, graph: Graph, names: Iterable[str]) -> dict[str, Tensor] | None:
    """Moves every parameter along its gradient, and returns the new gradients; None where the model fails there."""
    with torch.no_grad():
        for parameter in task.model.parameters():
            gradient = parameter.grad
            if gradient is not None and not gradient.is_sparse and bool(gradient.any()):
                parameter.sub_(STRIDE * gradient / gradient.abs().square().mean().sqrt())
    try:
        return _gradients(task, graph, names)
    except OUT_OF_MEMORY:
        raise
    except USER_ERRORS:
        return None


def _rounding(task: Task, gradient: Tensor) -> float:
    return HALF_ROUNDING if task.autocast is not None or gradient.dtype.itemsize < 4 else ROUNDING


def _refined(labels: Tensor, sums: Tensor, rounding: float) -> Tensor:
    """Returns a number for each unit, equal for those that had equal ones and whose sums are equal but for rounding.

    In the order of one of these sums, equal units are neighbours.
    """
    order = sums[:, 0].argsort()
    order = order[labels[order].argsort(stable=True)]
    ranked, before = sums[order], labels[order]
    sizes = ranked.abs().amax(dim=1)
    apart = (ranked[1:] - ranked[:-1]).abs().amax(dim=1) > rounding * torch.maximum(sizes[1:], sizes[:-1])
    apart |= before[1:] != before[:-1]
    refined = torch.zeros_like(labels)
    refined[order[1:]] = apart.cumsum(0)
    return refined


def _twins(name: str, labels: Tensor, moved: Tensor) -> Twins | None:
    """Returns the equal units of one matrix; where no gradient ever came, only if all of them are equal."""
    many = torch.bincount(labels)[labels] > 1
    if bool(many.all()) and bool((labels == labels[0]).all()):
        return Twins(name, len(labels), len(labels), whole=True)
    units = int((many & moved).sum())
    return Twins(name, units, len(labels), whole=False) if units else None
