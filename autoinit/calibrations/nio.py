"""Neural initialization optimization: scales such that the gradients of different rows point the same way.

Yang et al. 2022, "Towards Theoretically Inspired Neural Initialization Optimization", arXiv:2210.05956.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..plans.fill import Adjustment
from ..task.batches import Batch
from .descent import Descent
from .scales import ScaledModel, gradient, has_scale, norm, split, sum_of, windows
from .subject import Subject

ITERATIONS = 60
"""The paper takes 100."""
LR = 0.05
GAMMA = 5.0
"""Bound on the mean norm of the two gradients."""
COST = 5.0
"""Training steps that an iteration takes; see benchmarks/gradient_calibrations.py."""
TINY = 1e-12
"""Keeps the cosine of vanished gradients finite."""


def nio(
    subject: Subject, *, iterations: int = ITERATIONS, lr: float = LR, gamma: float = GAMMA
) -> Mapping[str, Adjustment]:
    """Returns the factor of each free tensor that makes GradCosine large under a bound on the gradient's norm.

    GradCosine is the cosine of the gradients of two sub-batches, the halves of a batch. Where their mean norm is
    above the bound, that norm is lowered instead.

    Args:
        subject: the drawn model and its data.
        iterations: batches to learn from.
        lr: of Adam on the scales.
        gamma: the bound.

    Raises:
        CalibrationError: the loss cannot be differentiated twice.
    """
    model = ScaledModel(subject, has_scale)
    if not model.names:
        return {}
    descent = Descent(model.scales, lr)
    for batch, following in windows(subject, iterations):
        slope, bound = _slope(model, *split(subject.task, batch, following), gamma)
        descent.step(slope, bound=bound)
        subject.spend(steps=COST * model.burden)
    return model.adjustments()


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Returns the cosine of two gradients, each taken as one vector, differentiable."""
    product = sum_of([a * b for a, b in zip(one, other, strict=True)])
    return product / (norm(one) * norm(other)).clamp(min=TINY)


def _slope(model: ScaledModel, one: Batch, other: Batch, gamma: float) -> tuple[Tensor, bool]:
    """Returns the gradient by the scales of what is to be lowered, and whether that is the bound."""
    weights = model.weights()
    parameters = list(weights.values())

    def work() -> tuple[Tensor, bool]:
        first, second = (gradient(model.loss(part), parameters, create_graph=True) for part in (one, other))
        length = (norm(first) + norm(second)) / 2
        bound = not length.item() <= gamma
        return gradient(length if bound else -cosine(first, second), [model.scales])[0], bound

    return model.inside(weights, work)
