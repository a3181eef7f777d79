"""MetaInit: norms of the weights such that the gradient changes little along a gradient step.

Dauphin & Schoenholz 2019, "MetaInit: Initializing learning by learning to initialize", NeurIPS 2019.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..graph import Layer
from ..plans.fill import Adjustment
from ..task.batches import Batch
from .plain_norms import PlainNorms
from .scales import SMALLEST, ScaledModel, gradient, sum_of
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
    move, best = torch.zeros_like(model.scales), _Best(model.scales, min(STRETCH, iterations))
    for index, batch in enumerate(subject.batches(iterations)):
        value, slope = _measured(model, batch)
        subject.spend(steps=COST * model.burden)
        best.offer(value, model.scales)
        if bool(slope.isfinite().all()):
            move = momentum * move - lr * (1 - index / iterations) * slope.sign()
            with torch.no_grad():
                model.scales.add_(move).clamp_(min=SMALLEST)
    with torch.no_grad():
        model.scales.copy_(best.scales)
    return model.adjustments()


class _Best:
    """The mean scales of the stretch of iterations with the smallest quotient.

    Steps of equal length swing around a minimum, or across it, and the quotient of one batch has heavy tails: so
    neither the last scales nor those of the best batch are the best.
    """

    def __init__(self, scales: Tensor, stretch: int) -> None:
        self.scales = scales.detach().clone()
        self._lowest = math.inf
        self._recent: deque[tuple[float, Tensor]] = deque(maxlen=stretch)

    def offer(self, value: float, scales: Tensor) -> None:
        """Takes note of the quotient that some scales gave; a stretch has none that is not finite."""
        if not 0 < value < math.inf:
            self._recent.clear()
            return
        self._recent.append((math.log(value), scales.detach().clone()))
        mean = sum(value for value, _ in self._recent) / len(self._recent)
        if len(self._recent) == self._recent.maxlen and mean < self._lowest:
            self._lowest = mean
            self.scales = torch.stack([scales for _, scales in self._recent]).mean(0)


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


def _measured(model: ScaledModel, batch: Batch) -> tuple[float, Tensor]:
    """Returns the quotient on a batch, and its gradient by the scales."""
    weights = model.weights()

    def work() -> tuple[float, Tensor]:
        with PlainNorms():
            loss = model.loss(batch)
        value = quotient(loss, list(weights.values()))
        return value.item(), gradient(value, [model.scales])[0]

    return model.inside(weights, work)


def _has_norm(layer: Layer) -> bool:
    return len(layer.shape) > 1 and layer.role != "other"
