"""MetaInit: norms of the weights such that the gradient changes little along a gradient step.

Dauphin & Schoenholz 2019, "MetaInit: Initializing learning by learning to initialize", NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..data import Batch
from ..graph import Layer
from ..plan import Adjustment
from .scales import SMALLEST, ScaledModel, gradient
from .subject import Subject

ITERATIONS = 50
"""The paper takes 500."""
LR, MOMENTUM = 0.1, 0.9
EPSILON = 1e-5
"""Keeps the quotient finite where a gradient is zero."""
COST = 10.5
"""Training steps that an iteration takes; see benchmarks/gradient_calibrations.py."""


def metainit(
    subject: Subject, *, iterations: int = ITERATIONS, lr: float = LR, momentum: float = MOMENTUM
) -> Mapping[str, Adjustment]:
    """Returns the factor of each free weight of two or more axes that makes the gradient quotient small.

    Descends on the norm of each tensor by the sign of the slope, with momentum, as the paper does; biases and
    scales of normalizations stay.

    Args:
        subject: the drawn model and its data; the paper's random inputs are the task's own batches here.
        iterations: batches to learn from.
        lr: how far a norm moves in one step.
        momentum: share of the last move that is made again.

    Raises:
        CalibrationError: the loss cannot be differentiated three times.
    """
    model = ScaledModel(subject, _has_norm)
    if not model.names:
        return {}
    norms = model.norms()
    move = torch.zeros_like(norms)
    for batch in subject.batches(iterations):
        slope = _slope(model, batch)
        subject.spend(steps=COST)
        if bool(slope.isfinite().all()):
            move = momentum * move - lr * slope.sign()
            with torch.no_grad():
                model.scales.add_(move / norms).clamp_(min=SMALLEST)
    return model.adjustments()


def quotient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Returns the gradient quotient: the mean over entries of |(g − Hg) / (g + ε·sign g) − 1|, differentiable.

    0 where the gradient does not change along a gradient step, as for a linear function.

    Args:
        loss: a scalar.
        parameters: with respect to which g and the Hessian H are taken.
    """
    gradients = gradient(loss, parameters, create_graph=True)
    half = torch.stack([g.square().sum() for g in gradients]).sum() / 2
    products = gradient(half, parameters, create_graph=True)
    pairs = zip(gradients, products, strict=True)
    total: Tensor = torch.stack([((g - h) / (g + EPSILON * _sign(g)) - 1).abs().sum() for g, h in pairs]).sum()
    return total / sum(g.numel() for g in gradients)


def _sign(tensor: Tensor) -> Tensor:
    """Returns 1 where an entry is not negative and −1 elsewhere, never 0."""
    return 2 * (tensor.detach() >= 0).to(tensor.dtype) - 1


def _slope(model: ScaledModel, batch: Batch) -> Tensor:
    weights = model.weights()

    def work() -> Tensor:
        found: Tensor = gradient(quotient(model.loss(batch), list(weights.values())), [model.scales])[0]
        return found

    return model.inside(weights, work)


def _has_norm(layer: Layer) -> bool:
    return len(layer.shape) > 1 and layer.role != "other"
