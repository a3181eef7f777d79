"""GradInit: scales such that one step of the optimizer lowers the loss the most, gradients bounded.

Zhu et al. 2021, "GradInit: Learning to Initialize Neural Networks for Stable and Efficient Training",
arXiv:2102.08098.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ..plans.fill import Adjustment
from ..task.batches import Batch
from .descent import Descent
from .scales import ScaledModel, gradient, has_scale, norm, split, windows
from .subject import Subject

ITERATIONS = 60
"""The paper takes up to 780, about two epochs of CIFAR-10; the largest gains come first."""
LR = 1e-2
GAMMA = 1.0
"""Bound on the gradient's 2-norm. For steps by the sign it is √n times as much on the 1-norm of n entries."""
PLAIN_LR, SIGN_LR = 0.1, 1e-3
"""Step lengths where the optimizer's own learning rate is not known: the paper's two."""
COST, BOUND_COST = 3.0, 3.5
"""Training steps of an iteration on the objective, and on the bound; see benchmarks/gradient_calibrations.py."""

TINY = 1e-12
"""Keeps the direction of a vanished gradient finite."""
PLAIN = frozenset({"SGD", "ASGD"})
"""Optimizers whose first step is along the gradient. All others are taken by the sign of its entries, as Adam's is."""


def gradinit(
    subject: Subject, *, iterations: int = ITERATIONS, lr: float = LR, gamma: float = GAMMA
) -> Mapping[str, Adjustment]:
    """Returns the factor of each free tensor that makes the loss after one optimizer step small.

    Minimizes L(S̃; θ(m) − η·A[g]) over the scales m, where g = ∇L(S; θ(m)), A[g] is γ·g/‖g‖ (SGD) or sign g (Adam
    and its kin), and η the optimizer's learning rate. Where ‖g‖ is above the bound, ‖g‖ is minimized instead.
    S̃ shares half of its rows with S. As in the authors' code the step itself is held fixed when it is
    differentiated, so that a second derivative is only needed on the bound.

    Args:
        subject: the drawn model and its data.
        iterations: batches to learn from.
        lr: of Adam on the scales.
        gamma: the bound, as in `GAMMA`.

    Raises:
        CalibrationError: the loss cannot be differentiated as often as needed.
    """
    model = ScaledModel(subject, has_scale)
    if not model.names:
        return {}
    descent = Descent(model.scales, lr)
    step = _Step(subject, gamma)
    curved = True
    for batch, following in windows(subject, iterations):
        slope, bound = _slope(model, step, batch, following, curved)
        descent.step(slope, bound=bound)
        subject.spend(steps=BOUND_COST * model.burden if bound else COST)
        curved = bound
    return model.adjustments()


class _Step:
    """The first step of the task's optimizer, and the norm that bounds its gradient."""

    def __init__(self, subject: Subject, gamma: float) -> None:
        self.task = subject.task
        self._sign = subject.task.optimizer_name not in PLAIN
        self._lr = subject.task.lr or (SIGN_LR if self._sign else PLAIN_LR)
        self._gamma = gamma

    def norm(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Returns ‖g‖: the 1-norm where the step is by the sign, as it is what such a step lowers the loss by."""
        return norm(gradients, 1 if self._sign else 2)

    def allows(self, length: float, gradients: tuple[Tensor, ...]) -> bool:
        """Whether a gradient is no longer than the bound."""
        entries = sum(g.numel() for g in gradients) if self._sign else 1
        return length <= self._gamma * math.sqrt(entries)

    def taken(self, weights: Mapping[str, Tensor], gradients: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Returns the weights after the step, which itself counts as a constant.

        A plain step is as long as the bound allows: at its own length it would see nothing of a net whose
        gradients have vanished.
        """
        if self._sign:
            moves = [self._lr * g.detach().sign() for g in gradients]
        else:
            length = self._lr * self._gamma / norm(gradients).detach().clamp(min=TINY)
            moves = [length * g.detach() for g in gradients]
        return {name: weight - move for (name, weight), move in zip(weights.items(), moves, strict=True)}


def _slope(model: ScaledModel, step: _Step, batch: Batch, following: Batch, curved: bool) -> tuple[Tensor, bool]:
    """Returns the gradient by the scales of what is to be lowered, and whether that is the bound.

    Args:
        model: the loss as a function of the scales.
        step: the optimizer's.
        batch: S.
        following: half of it stands in S̃.
        curved: whether the last gradient exceeded the bound, so that this one will probably be differentiated.
    """
    weights = model.weights()
    parameters = list(weights.values())

    def first() -> tuple[tuple[Tensor, ...], Tensor | None]:
        gradients = gradient(model.loss(batch), parameters, create_graph=curved)
        length = step.norm(gradients)
        if step.allows(length.item(), gradients):  # what is done next hangs on it: the host has to wait for this number
            return gradients, None
        if not curved:
            gradients = gradient(model.loss(batch), parameters, create_graph=True)
            length = step.norm(gradients)
        return gradients, gradient(length, [model.scales])[0]

    gradients, slope = model.inside(weights, first)
    if slope is not None:
        return slope, True
    weights = model.weights()  # a fresh graph; the other one is spent
    after = step.taken(weights, gradients)
    shared, fresh = split(step.task, batch, following)[1], split(step.task, following, batch)[0]
    objective = model.inside(after, lambda: gradient(model.loss(shared, fresh), [model.scales])[0])
    return objective, False
