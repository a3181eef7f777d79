"""How signals and gradients pass through a model as it is, measured on one batch."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..activations import GRID, Activation, Array
from ..errors import USER_ERRORS
from ..graph import Graph, Layer, Role
from ..task.assign import derived_name, read
from ..task.batches import Batch, halves
from ..task.machine import OUT_OF_MEMORY
from ..task.products import watch_products
from ..task.task import Task

SAMPLES = 8192
"""Values per layer at which the slope of the activation is looked up."""
DEAD_SLOPE = 1e-3
"""A unit whose slope stays below this share of the steepest, on the whole batch, hardly learns."""
SATURATED_SLOPE = 0.05
"""Below this share of the steepest slope a value passes next to no gradient (tanh beyond ±2.2)."""
TAILS: Array = np.array([-7.7, -7.3, -6.9, -6.5, 6.5, 6.9, 7.3, 7.7])
"""Where a bounded activation is flat, and a sine is not."""


@dataclass(frozen=True, slots=True)
class LayerSignal:
    """What was measured at one weight.

    Attributes:
        name: of the weight.
        role: of the weight.
        forward_mean: mean of its output, bias included; None where its product was not seen.
        forward_std: standard deviation of that output over batch and units; None where it is one value.
        grad_norm: norm of the loss's gradient; None where none arrives.
        weight_norm: norm of the weight.
        dead: share of output units whose activation is flat for every row; None where no activation follows
            directly.
        saturated: share of (row, unit) values on the flat part of a bounded activation; None for others.
    """

    name: str
    role: Role
    forward_mean: float | None
    forward_std: float | None
    grad_norm: float | None
    weight_norm: float
    dead: float | None
    saturated: float | None


@dataclass(frozen=True, slots=True)
class Signals:
    """What was measured on one batch.

    Attributes:
        loss: of the batch.
        grad_norm: norm of the gradient of all parameters together.
        agreement: cosine between the gradients of the two halves of the batch; None where it cannot be
            halved, the model takes no half batch, or a gradient is zero or not finite.
        layers: every matrix and embedding, in the order of the graph.
    """

    loss: float
    grad_norm: float
    agreement: float | None
    layers: tuple[LayerSignal, ...]


@dataclass(frozen=True, slots=True)
class _Output:
    mean: float
    std: float | None
    dead: float | None
    saturated: float | None


def measure(task: Task, graph: Graph, batch: Batch | None = None) -> Signals:
    """Returns the signals of the model as it is, in training mode; the model is put back.

    Args:
        task: what is trained.
        graph: the model's architecture.
        batch: on the task's device; where None, the first training batch.
    """
    batch = task.train[0] if batch is None else batch
    with task.preserved() as snapshot:
        loss, by_name, layers = passed(task, graph, batch)
        total = math.sqrt(sum(norm**2 for norm in by_name.values()))
        snapshot.rewind()
        return Signals(loss, total, agreement(task, batch), layers)


def layer_signals(task: Task, graph: Graph) -> tuple[LayerSignal, ...]:
    """Returns what one pass over the first training batch shows of each layer; the caller puts the model back.

    Args:
        task: what is trained.
        graph: the model's architecture.
    """
    return passed(task, graph, task.train[0])[2]


def passed(task: Task, graph: Graph, batch: Batch) -> tuple[float, dict[str, float], tuple[LayerSignal, ...]]:
    """Returns the loss of a batch, the gradient's norm by parameter name, and the signals of each layer.

    The gradients stay in the parameters; the caller puts the model back.

    Args:
        task: what is trained.
        graph: the model's architecture.
        batch: on the task's device.
    """
    task.model.train()
    task.model.zero_grad(set_to_none=True)
    outputs: dict[str, _Output] = {}

    def on_product(name: str, output: Tensor) -> None:
        if name in graph and name not in outputs:
            outputs[name] = _output(graph[name], output.detach())

    with watch_products(task.model, on_product):
        loss = task.backward(batch).item()
    by_name = gradient_norms(task.model)
    layers = tuple(
        _layer_signal(task.model, layer, outputs.get(layer.name), by_name.get(layer.name))
        for layer in graph.layers
        if layer.is_matrix or layer.kind == "embedding"
    )
    return loss, by_name, layers


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Returns the gradient's norm by parameter name; of a parametrized weight, of what it is derived from."""
    named = [(derived_name(name), p.grad) for name, p in model.named_parameters() if p.grad is not None]
    squares: defaultdict[str, float] = defaultdict(float)
    values = norms([grad for _, grad in named])
    for (name, _), norm in zip(named, values, strict=True):
        squares[name] += norm**2 if norm < 1e150 else math.inf
    return {name: math.sqrt(square) for name, square in squares.items()}


def norms(gradients: list[Tensor]) -> list[float]:
    """Returns the norm of each tensor, on any device, sparse ones included."""
    if not gradients:
        return []
    plain = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    # In half precision the sum of squares overflows at norms of 256.
    plain = [gradient.float() if gradient.dtype == torch.float16 else gradient for gradient in plain]
    found: list[float] = torch.stack([norm.to(plain[0].device) for norm in torch._foreach_norm(plain)]).tolist()
    return found


def _layer_signal(model: nn.Module, layer: Layer, output: _Output | None, grad_norm: float | None) -> LayerSignal:
    weight_norm = read(model, layer.name).detach().float().norm().item()
    seen: tuple[Any, ...] = (None,) * 4
    if output is not None:
        seen = (output.mean, output.std, output.dead, output.saturated)
    mean, std, dead, saturated = seen
    return LayerSignal(layer.name, layer.role, mean, std, grad_norm, weight_norm, dead, saturated)


def _output(layer: Layer, z: Tensor) -> _Output:
    values = z.float()
    dead = saturated = None
    if _reaches_activation(layer):
        units = _by_unit(layer, values)
        dead = dead_share(layer.activation, units)
        saturated = saturated_share(layer.activation, units)
    std = values.std().item() if values.numel() > 1 else None
    return _Output(values.mean().item(), std, dead, saturated)


def _reaches_activation(layer: Layer) -> bool:
    """Whether what the product gives is what the activation sees: no norm, no residual add, no mixing between."""
    nonlinear = layer.activation.name not in ("linear", "spike")
    return nonlinear and not (layer.normalized or layer.closes_branch or layer.mixed) and layer.is_matrix


def _by_unit(layer: Layer, z: Tensor) -> Tensor:
    """Returns the output as [values, units]: channels are units in a convolution."""
    if layer.kind in ("conv", "conv_transposed") and z.dim() > 2:
        return z.movedim(-(len(layer.shape) - 1), -1).flatten(0, -2)
    return z.flatten(0, -2) if z.dim() > 1 else z[None]


def dead_share(activation: Activation, units: Tensor) -> float:
    """Returns the share of units whose slope is near 0 at every value.

    Looked up at each unit's extremes over the whole batch and at evenly picked rows.

    Args:
        activation: φ.
        units: [values, units].
    """
    rows = torch.cat([units.amin(0)[None], units.amax(0)[None], _picked(units)])
    return float((_slopes(activation, rows) < DEAD_SLOPE * steepest(activation)).all(axis=0).mean())


def saturated_share(activation: Activation, units: Tensor) -> float | None:
    """Returns the share of values where a bounded φ is flat; None where φ is not flat at both ends.

    Args:
        activation: φ.
        units: [values, units].
    """
    limit = SATURATED_SLOPE * steepest(activation)
    if not (np.abs(activation.slope(TAILS)) < limit).all():
        return None
    return float((_slopes(activation, _picked(units)) < limit).mean())


def steepest(activation: Activation) -> float:
    """Returns the largest |φ'|."""
    return float(np.abs(activation.slope(GRID)).max())


def _picked(units: Tensor) -> Tensor:
    count = max(1, SAMPLES // max(1, units.shape[1]))
    step = max(1, units.shape[0] // count)
    return units[::step][:count]


def _slopes(activation: Activation, values: Tensor) -> Array:
    """Returns |φ'| at each value; exploded values have no slope, and say so by NaN rather than a warning."""
    with np.errstate(all="ignore"):
        return np.abs(activation.slope(values.detach().cpu().double().numpy()))


def agreement(task: Task, batch: Batch) -> float | None:
    """Returns the cosine between the gradients of the two halves of a batch; None where there is none.

    The caller puts the model back.
    """
    pair = halves(batch)
    if pair is None:
        return None
    gradients = []
    for half in pair:
        task.model.zero_grad(set_to_none=True)
        try:
            task.backward(half)
        except OUT_OF_MEMORY:
            raise
        except USER_ERRORS:  # batch normalization of a single row, a batch size that is built in
            return None
        gradients.append({name: p.grad for name, p in task.model.named_parameters() if p.grad is not None})
    return cosine(*gradients)


def cosine(first: dict[str, Tensor], second: dict[str, Tensor]) -> float | None:
    """Returns the cosine between two gradients, each by parameter name; None where it has no meaning."""
    dot = sum(float((first[name].conj() * second[name]).sum().real) for name in first.keys() & second.keys())
    one, two = (math.hypot(*norms(list(side.values()))) for side in (first, second))
    if not (math.isfinite(dot) and 0 < one < math.inf and 0 < two < math.inf):
        return None
    return dot / (one * two)
