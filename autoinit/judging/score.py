"""From a probe's curve to one number, lower is better: convergence and gradient stability.

Of a probe of T steps, with L the loss and L_ref the loss of the best constant predictor (label entropy, target
variance), or else the first loss of the owner's own weights:

    u(L) = clip(log(max(L, 1e-3·L_ref) / L_ref), −∞, log 10)
    S_T  = ½·(mean of u over the last ⌈T/4⌉ batches + u of the held-back loss) + 0.05·min(3, r)·min(1, 20/T)
    r    = log10(max‖g‖ / min‖g‖) over the weights' gradients at step 20 (or the first rung, where that is earlier)

The range r tells, before the loss does, whether gradients reach every weight. Beyond a factor of 1,000 a net stands
still, however much larger r is, and so does one whose gradients are all zero (a first jolt can kill every ReLU); the
longer the probe, the more the loss itself has told. docs/scoring.md has the measurements, and how the form and its
numbers were chosen.

A divergence at step t scores log 10 + 0.15 + (1 − t/T), which is worse than anything finite; later is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

FLOOR, CEILING = 1e-3, 10.0
RANGE_WEIGHT, RANGE_CAP = 0.05, 3.0
RANGE_STEP = 20
"""The step at which the range of gradients is taken: early enough to tell, past the first jolts."""

LOWEST = -1000.0
"""What u of a difference is at least: so many units below the reference all are alike."""

TINY = 1e-12
"""Stands for the reference of losses that are all 0, of which there is no logarithm."""

WORST_FINITE = math.log(CEILING) + RANGE_WEIGHT * RANGE_CAP


@dataclass(frozen=True, slots=True)
class Glance:
    """What the first forward and backward pass tells, before any training.

    Attributes:
        loss: of the first batch.
        gradient_norm: of all weights together; inf or NaN where one is not finite.
        gradient_range: log10 of the largest over the smallest weight gradient norm; inf where one is zero while
            another is not, None where all are zero, or there is one weight only.
    """

    loss: float
    gradient_norm: float
    gradient_range: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """What one probe saw.

    Attributes:
        losses: training loss of each step's batch, before the step.
        held_back: (steps done, mean loss on the held-back batches), in order.
        by_batch: loss of each held-back batch at the last evaluation, in their order.
        glance: at the first step; None where that was not reached.
        gradient_range: log10 of the largest over the smallest weight gradient norm; inf where one is zero
            while another is not.
        diverged_at: the step at which a training or held-back loss was not finite; None where none was.
        seconds: wall time.
    """

    losses: tuple[float, ...]
    held_back: tuple[tuple[int, float], ...] = ()
    gradient_range: float | None = None
    diverged_at: int | None = None
    seconds: float = 0.0
    by_batch: tuple[float, ...] = ()
    glance: Glance | None = None

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return len(self.losses)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a loss is measured against.

    Attributes:
        loss: L_ref.
        scale: None for losses that stay positive; else the size of one unit of u, for losses that can be
            negative, where u = (L − L_ref)/scale.
        guess: whether `loss` is that of a constant guess, and not the owner's own first one.
    """

    loss: float
    scale: float | None = None
    guess: bool = True

    @staticmethod
    def of(constant: float | None, own: Sequence[float]) -> Reference:
        """Returns the reference of a task.

        Args:
            constant: loss of the best constant predictor; None where it is not known.
            own: finite losses of a probe of the owner's own weights.
        """
        finite = [value for value in own if math.isfinite(value)] or [1.0]
        if min(finite) >= 0:  # a loss that is exactly 0 at times is still one that stays positive
            first = next((value for value in finite if value > 0), TINY)
            known = constant is not None and constant > 0
            return Reference(constant if constant and known else first, guess=known)
        return Reference.of_differences(finite)

    @staticmethod
    def of_differences(own: Sequence[float], least: float = TINY) -> Reference:
        """Returns the reference of a task whose losses can be negative.

        Args:
            own: finite losses of a probe of the owner's own weights, one at least.
            least: size of a unit at the least.
        """
        spread = max(own) - min(own)
        return Reference(own[0], scale=max(abs(own[0]), spread, least), guess=False)

    @property
    def ratios(self) -> bool:
        """Whether losses are compared by their ratio: those that stay positive are."""
        return self.scale is None

    def relative(self, loss: float) -> float:
        """Returns a loss in units of the reference, within the limits of `u`; `u` itself where it can be negative.

        Unlike `u` it can be averaged over rows: their mean is that of the losses.
        """
        return math.exp(self.u(loss)) if self.ratios else self.u(loss)

    def u(self, loss: float) -> float:
        """Returns the scale-free loss: 0 at the reference, −1 where it is e times lower, at most log 10."""
        if not math.isfinite(loss):
            return math.log(CEILING)
        if self.scale is not None:
            return min(max((loss - self.loss) / self.scale, LOWEST), math.log(CEILING))
        return min(math.log(max(loss, FLOOR * self.loss) / self.loss), math.log(CEILING))


@dataclass(frozen=True, slots=True)
class Score:
    """A probe's score and its parts, all in units of u.

    Attributes:
        total: S_T, what candidates are ranked by.
        training: mean u over the last quarter of the batches.
        held_back: u on the held-back batches; the training part again where there are none.
        stability: the gradient-range term.
        steps: T.
        diverged: whether a loss or gradient was not finite.
    """

    total: float
    training: float
    held_back: float
    stability: float
    steps: int
    diverged: bool = field(default=False)


def score(curve: Curve, reference: Reference, planned: int) -> Score:
    """Returns the score of a probe (see the module's formula).

    Args:
        curve: what the probe saw, up to the step that is scored.
        reference: of the task.
        planned: T, the steps the probe would have taken; only a divergence needs it.
    """
    stability = _stability(curve)
    training = tail_loss(curve, reference)
    held_back = reference.u(curve.held_back[-1][1]) if curve.held_back else training
    if curve.diverged_at is not None:
        early = 1 - curve.diverged_at / max(1, planned)
        return Score(WORST_FINITE + early, training, held_back, stability, curve.steps, diverged=True)
    total = 0.5 * (training + held_back) + stability
    return Score(total, training, held_back, stability, curve.steps)


def tail_loss(curve: Curve, reference: Reference) -> float:
    """Returns the mean u over the last quarter of the batches."""
    if curve.diverged_at is not None or not curve.losses:
        return math.log(CEILING)
    tail = curve.losses[-math.ceil(curve.steps / 4) :]
    return sum(map(reference.u, tail)) / len(tail)


def _stability(curve: Curve) -> float:
    found = RANGE_CAP if curve.gradient_range is None else min(RANGE_CAP, curve.gradient_range)
    return RANGE_WEIGHT * found * min(1.0, RANGE_STEP / max(1, curve.steps))
