"""What is recorded of one training while it runs, and the curve that it makes: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..judging.score import RANGE_STEP, Curve, Glance
from ..task.batches import Batch, rows


@dataclass
class Recorder:
    """What one training has shown so far; it may stop, and go on.

    Attributes:
        blind: whether the training shows no gradients at its first step: there is no glance, and nothing to wait for.
        scaled: whether the loss is scaled. While the scale is too high, gradients that are not finite tell of it and
            not of the weights.
        losses: training loss of each step's batch.
        held_back: (steps done, mean loss on the held-back batches) of each evaluation.
        by_batch: loss of each held-back batch at the last one.
        glance: at the first gradients; None before.
        gradient_range: see `log_range`.
        diverged_at: the step at which a loss was not finite; None where none was.
        seconds: that the training took; whoever trains counts them.
    """

    scaled: bool = False
    losses: list[float] = field(default_factory=list)
    held_back: list[tuple[int, float]] = field(default_factory=list)
    by_batch: Sequence[float] = ()
    glance: Glance | None = None
    gradient_range: float | None = None
    diverged_at: int | None = None
    seconds: float = 0.0
    blind: bool = False
    _unread: int = field(default=0, init=False)
    _stops: frozenset[int] = field(default=frozenset(), init=False)
    _range_steps: frozenset[int] = field(default=frozenset(), init=False)
    _range_missed: bool = field(default=False, init=False)

    @property
    def steps(self) -> int:
        """Training steps done so far."""
        return len(self.losses) + self._unread

    @property
    def stops_here(self) -> bool:
        """Whether the step just done is a rung, or the end."""
        return self.steps in self._stops

    @property
    def gradients_next(self) -> bool:
        """Whether gradients are to be looked at in the step that comes next."""
        return (self.glance is None and not self.blind) or self._range_missed or self.steps + 1 in self._range_steps

    @property
    def range_due(self) -> bool:
        """Whether the range of gradients is to be taken at this step."""
        return self._range_missed or self.steps in self._range_steps

    def go_on(self, steps: int, rungs: Sequence[int]) -> None:
        """Says how far the training is about to go.

        The range of gradients is taken at its step, and once before where a new training stops earlier.

        Args:
            steps: at the most, those of before included.
            rungs: steps at which it stops to be evaluated; the end is always one.
        """
        self._stops = frozenset({*(rung for rung in rungs if rung < steps), steps})
        self._range_steps = frozenset({RANGE_STEP} if self.steps else {RANGE_STEP, min(RANGE_STEP, *self._stops)})

    def take(self, loss: float) -> bool:
        """Adds a step's loss; returns whether it is finite, without which nothing goes on."""
        self.losses.append(loss)
        return self._is_finite(loss)

    def pass_by(self) -> None:
        """Counts a step whose loss is read later."""
        self._unread += 1

    def read(self, losses: Sequence[float]) -> bool:
        """Adds the losses of steps passed by, up to the first that is not finite; returns whether all are."""
        self._unread = 0
        return all(map(self.take, losses))

    @property
    def loss_due(self) -> bool:
        """Whether what was passed by is to be read at this step: somebody is asked, or gradients are looked at."""
        return (self.glance is None and not self.blind) or self.range_due or self.stops_here

    def look(self, norms: Sequence[float]) -> Glance | None:
        """Returns the glance at the first gradients; None where they tell of the loss scale and are looked at again.

        That goes on until they are finite, up to the step of the range.

        Args:
            norms: of each weight's gradient.
        """
        seen = Glance(self.losses[0], math.hypot(*norms), log_range(norms))
        if not self.scaled or math.isfinite(seen.gradient_norm) or self.steps == RANGE_STEP:
            self.glance = seen
        return self.glance

    def take_range(self, norms: Sequence[float]) -> None:
        """Takes note of the range of gradients; where the loss is scaled, until all are finite."""
        self._range_missed = self.scaled and not all(map(math.isfinite, norms))
        self.gradient_range = log_range(norms)

    def evaluate(self, losses: Sequence[float], batches: Sequence[Batch]) -> bool:
        """Adds an evaluation; returns whether its mean is finite, without which nothing goes on.

        Args:
            losses: of each held-back batch.
            batches: the same ones, for their rows.
        """
        mean = mean_per_row(losses, batches)
        self.by_batch = losses
        self.held_back.append((self.steps, mean))
        return self._is_finite(mean)

    def curve(self) -> Curve:
        """Returns what was seen so far."""
        return Curve(
            tuple(self.losses),
            tuple(self.held_back),
            self.gradient_range,
            self.diverged_at,
            self.seconds,
            tuple(self.by_batch),
            self.glance,
        )

    def _is_finite(self, loss: float) -> bool:
        """Whether a loss is finite; one that is not diverges here."""
        if math.isfinite(loss):
            return True
        self.diverged_at = self.steps
        return False


def mean_per_row(losses: Sequence[float], batches: Sequence[Batch]) -> float:
    """Returns the mean loss per row."""
    weights = [rows(batch) for batch in batches]
    return sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)


def log_range(each: Sequence[float]) -> float | None:
    """Returns log10 of the largest over the smallest gradient norm; inf where only some are zero."""
    finite = [norm for norm in each if math.isfinite(norm)]
    if len(finite) < 2 or max(finite) == 0:
        return None
    return math.log10(max(finite) / min(finite)) if min(finite) > 0 else math.inf
