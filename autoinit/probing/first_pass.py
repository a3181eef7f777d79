"""What one pass of the owner's weights tells of a task, in numbers: loss, gradients, and how the loss bends along them.

The recommender takes it in where there are data. Whatever fails leaves its numbers unknown: a model that cannot run a
batch says so where it is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean

import torch
from torch import Tensor

from ..errors import USER_ERRORS
from ..graph import Graph
from ..knowledge.features import SMALLEST_NORM, Features
from ..task.snapshot import preserved_random, seed_generators
from ..task.task import Task
from .recorder import log_range
from .signals import LayerSignal, measure, norms

STRIDE = 1e-3
"""How far the weights go along the gradient to see how it changes, as a share of their norm."""


def pass_features(task: Task, graph: Graph, told: Mapping[str, float]) -> Features:
    """Returns what the first batch of training tells; the model, gradients and random states stay as they are.

    Args:
        task: whose model is passed as it is; nothing is found out of one on the meta device.
        graph: its architecture.
        told: features of the task that are known; the best constant prediction's loss is used.
    """
    if any(parameter.is_meta for parameter in task.model.parameters()):
        return {}
    found: Features = {}
    for read in (_signals, _curvature):
        try:
            with preserved_random():
                seed_generators(0, task.device)  # of dropout, so that the same model has the same numbers
                found |= read(task, graph, told)
        except USER_ERRORS:  # batch normalization of a single row, no memory left, a step that steps by itself
            continue
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _signals(task: Task, graph: Graph, told: Mapping[str, float]) -> Features:
    seen = measure(task, graph)
    weights = [one for one in seen.layers if graph[one.name].is_matrix]
    found: Features = {"pass_gradient": math.log10(max(seen.grad_norm, SMALLEST_NORM)), **_sizes(weights, graph)}
    if "data_reference" in told and seen.loss > 0:
        found["pass_loss"] = math.log(seen.loss) - told["data_reference"]
    if (spread := log_range([one.grad_norm for one in weights if one.grad_norm is not None])) is not None:
        found["pass_range"] = spread
    if seen.agreement is not None:
        found["pass_agreement"] = seen.agreement
    for name in ("dead", "saturated"):
        if shares := [share for one in weights if (share := getattr(one, name)) is not None]:
            found[f"pass_{name}"] = fmean(shares)
    return found


def _sizes(weights: list[LayerSignal], graph: Graph) -> Features:
    """Returns how large the outputs are, and how that changes over the depth before them."""
    sizes = [(graph[one.name].depth, math.log2(one.forward_std)) for one in weights if one.forward_std]
    last = max((depth for depth, _ in sizes), default=0)
    inner = sorted(one for one in sizes if one[0] < last)
    found = {"pass_output": fmean(size for depth, size in sizes if depth == last)} if sizes else {}
    return found | ({"pass_growth": inner[-1][1] - inner[0][1]} if inner else {})


def _curvature(task: Task, graph: Graph, told: Mapping[str, float]) -> Features:
    """Returns the curvature of the loss along the gradient g, gᵀHg/g·g, as asinh.

    By the difference of two gradients a small way apart, since not every operation can be differentiated twice.
    """
    with task.preserved() as snapshot:
        first = _gradients(task)
        reached = {name: one for name, one in task.model.named_parameters() if name in first}
        size, way = _norm(first.values()), STRIDE * _norm(one.detach() for one in reached.values())
        if not (0 < size < math.inf and way > 0):
            return {}
        snapshot.rewind()
        with torch.no_grad():
            for name, one in reached.items():
                one.add_(first[name], alpha=way / size)
        second = _gradients(task)
        change = sum(float((first[name] * (second[name] - first[name])).sum()) for name in first.keys() & second.keys())
    return {"pass_curvature": math.asinh(change / (size * way))}


def _gradients(task: Task) -> dict[str, Tensor]:
    task.model.train()
    task.backward(task.train[0])
    return {name: one.grad.detach().clone() for name, one in task.model.named_parameters() if one.grad is not None}


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*norms(list(tensors)))
