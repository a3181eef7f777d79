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
from ..task.snapshot import Snapshot, preserved_random, seed_generators
from ..task.task import Task
from .recorder import log_range
from .signals import LayerSignal, agreement, norms, passed

STRIDE = 1e-3
"""How far the weights go along the gradient to see how it changes, as a share of their norm."""
LARGE = 20_000_000
"""Parameters from which on one pass has to do: what takes further ones stays unknown."""


def pass_features(task: Task, graph: Graph, told: Mapping[str, float], *, once: bool = False) -> Features:
    """Returns what the first batch of training tells; the model, gradients and random states stay as they are.

    Args:
        task: whose model is passed as it is; nothing is found out of one on the meta device.
        graph: its architecture.
        told: features of the task that are known; the best constant prediction's loss is used.
        once: whether one forward and backward pass has to do, as it has for a large model, and not three.
    """
    parameters = list(task.model.parameters())
    if task.own is not None or any(parameter.is_meta for parameter in parameters):
        return {}  # what an architecture is read from need be no loss
    found: Features = {}
    large = once or sum(parameter.numel() for parameter in parameters) >= LARGE
    try:
        with preserved_random():
            seed_generators(0, task.device)  # of dropout, so that the same model has the same numbers
            with task.preserved() as snapshot:
                _passes(task, graph, told, snapshot, large, found)
    except USER_ERRORS:  # batch normalization of a single row, no memory left, a step that steps by itself
        pass
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _passes(
    task: Task, graph: Graph, told: Mapping[str, float], snapshot: Snapshot, large: bool, found: Features
) -> None:
    """Adds what passes tell, one by one: what is known before one fails stays."""
    loss, by_name, layers = passed(task, graph, task.train[0])
    found |= _signals(graph, loss, by_name, layers, told)
    if large:
        return
    gradients = {name: one.grad for name, one in task.model.named_parameters() if one.grad is not None}
    snapshot.rewind()
    if (cosine := agreement(task, task.train[0])) is not None:
        found["pass_agreement"] = cosine
    snapshot.rewind()
    found |= _curvature(task, gradients)


def _signals(
    graph: Graph, loss: float, by_name: Mapping[str, float], layers: Iterable[LayerSignal], told: Mapping[str, float]
) -> Features:
    weights = [one for one in layers if graph[one.name].is_matrix]
    norm = math.hypot(*by_name.values())
    found: Features = {"pass_gradient": math.log10(max(norm, SMALLEST_NORM)), **_sizes(weights, graph)}
    if "data_reference" in told and loss > 0:
        found["pass_loss"] = math.log(loss) - told["data_reference"]
    if (spread := log_range([one.grad_norm for one in weights if one.grad_norm is not None])) is not None:
        found["pass_range"] = spread
    if dead := [one.dead for one in weights if one.dead is not None]:
        found["pass_dead"] = fmean(dead)
    if saturated := [one.saturated for one in weights if one.saturated is not None]:
        found["pass_saturated"] = fmean(saturated)
    return found


def _sizes(weights: list[LayerSignal], graph: Graph) -> Features:
    """Returns how large the outputs are, and how that changes over the depth before them."""
    sizes = [(graph[one.name].depth, math.log2(one.forward_std)) for one in weights if one.forward_std]
    last = max((depth for depth, _ in sizes), default=0)
    inner = sorted(one for one in sizes if one[0] < last)
    found = {"pass_output": fmean(size for depth, size in sizes if depth == last)} if sizes else {}
    return found | ({"pass_growth": inner[-1][1] - inner[0][1]} if inner else {})


def _curvature(task: Task, first: Mapping[str, Tensor]) -> Features:
    """Returns the curvature of the loss along its gradient g, gᵀHg/g·g, as asinh; the caller puts the model back.

    By the difference of two gradients a small way apart, since not every operation can be differentiated twice.
    """
    reached = {name: one for name, one in task.model.named_parameters() if name in first}
    size, way = _norm(first.values()), STRIDE * _norm(one.detach() for one in reached.values())
    if not (0 < size < math.inf and way > 0):
        return {}
    with torch.no_grad():
        for name, one in reached.items():
            one.add_(first[name], alpha=way / size)
    task.model.train()
    task.backward(task.train[0])
    pairs = ((first[name], one.grad) for name, one in reached.items() if one.grad is not None)
    change = sum(float((one * (other - one)).sum()) for one, other in pairs)
    return {"pass_curvature": math.asinh(change / (size * way))}


def _norm(tensors: Iterable[Tensor]) -> float:
    return math.hypot(*norms(list(tensors)))
