"""MetaInit: norms of the weights such that the gradient changes little along a gradient step.

Dauphin & Schoenholz 2019, "MetaInit: Initializing learning by learning to initialize", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..graph import Layer
from ..plans.fill import Adjustment
from ..task.batches import Batch
from ..task.machine import numbers
from .descent import SMALLEST
from .plain_norms import PlainNorms
from .scales import ScaledModel, gradient, sum_of
from .subject import Subject

ITERATIONS = 50
"""The paper takes 500."""
LR, MOMENTUM = 0.01, 0.9
"""The step is a share of the drawn norm: the paper's 0.1, meant for norms of about ten, throws small layers about."""
STRETCH = 5
"""Iterations over which the quotient is averaged before it is believed."""
EPSILON = 1e-5
"""Keeps the quotient finite where a gradient is zero."""
COST = 10.5
"""Training steps that an iteration takes; see benchmarks/gradient_calibrations.py."""


def metainit(
    subject: Subject, *, iterations: int = ITERATIONS, lr: float = LR, momentum: float = MOMENTUM
) -> Mapping[str, Adjustment]:
    """Returns the factor of each free weight of two or more axes that makes the gradient quotient small.

    Descends on the norm of each tensor by the sign of the slope, with momentum, as the paper does; the steps shrink
    linearly to zero, and the mean scales of the best few iterations are the result. Biases and scales of
    normalizations stay.

    Args:
        subject: the drawn model and its data; the paper's random inputs are the task's own batches here.
        iterations: batches to learn from.
        lr: how far a norm moves in the first step, as a share of what it was.
        momentum: share of the last move that is made again.

    Raises:
        CalibrationError: the loss cannot be differentiated three times.
    """
    model = ScaledModel(subject, _has_norm)
    if not model.names:
        return {}
    move, start = torch.zeros_like(model.scales), model.scales.detach().clone()
    values: list[Tensor] = []
    scales: list[Tensor] = []
    for index, batch in enumerate(subject.batches(iterations)):
        value, slope = _measured(model, batch)
        subject.spend(steps=COST * model.burden)
        values.append(value)
        scales.append(model.scales.detach().clone())
        with torch.no_grad():  # a slope that is not finite is passed over, on the device
            finite = slope.isfinite().all()
            move = torch.where(finite, momentum * move - lr * (1 - index / iterations) * slope.sign(), move)
            model.scales.add_(torch.where(finite, move, 0.0)).clamp_(min=SMALLEST)
    best = best_stretch(numbers(values), min(STRETCH, iterations))
    with torch.no_grad():
        model.scales.copy_(start if best is None else torch.stack(scales[best]).mean(0))
    return model.adjustments()


def best_stretch(values: Sequence[float], length: int) -> slice | None:
    """Returns the stretch of iterations with the smallest quotient, by its geometric mean; None where there is none.

    Steps of equal length swing around a minimum, or across it, and the quotient of one batch has heavy tails: so
    neither the last scales nor those of the best batch are the best, but the mean of such a stretch. It holds no
    quotient that is not finite.
    """
    lowest, best = math.inf, None
    for end in range(length, len(values) + 1):
        recent = values[end - length : end]
        if not all(0 < value < math.inf for value in recent):
            continue
        mean = sum(map(math.log, recent)) / length
        if mean < lowest:
            lowest, best = mean, slice(end - length, end)
    return best


def quotient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Returns the gradient quotient: the mean over entries of |(g − Hg) / (g + ε·sign g) − 1|, differentiable.

    0 where the gradient does not change along a gradient step, as for a linear function.

    Args:
        loss: a scalar.
        parameters: with respect to which g and the Hessian H are taken.
    """
    gradients = gradient(loss, parameters, create_graph=True)
    products = gradient(sum_of([g.square() for g in gradients]) / 2, parameters, create_graph=True)
    pairs = zip(gradients, products, strict=True)
    total = sum_of([((g - h) / (g + EPSILON * _sign(g)) - 1).abs() for g, h in pairs])
    return total / sum(g.numel() for g in gradients)


def _sign(tensor: Tensor) -> Tensor:
    """Returns 1 where an entry is not negative and −1 elsewhere, never 0."""
    return 2 * (tensor.detach() >= 0).to(tensor.dtype) - 1


def _measured(model: ScaledModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the quotient on a batch, and its gradient by the scales."""
    weights = model.weights()

    def work() -> tuple[Tensor, Tensor]:
        with PlainNorms():
            loss = model.loss(batch)
        value = quotient(loss, list(weights.values()))
        return value.detach(), gradient(value, [model.scales])[0]

    return model.inside(weights, work)


def _has_norm(layer: Layer) -> bool:
    return len(layer.shape) > 1 and layer.role != "other"
