"""The gate: whether a champion beats the owner's own weights beyond noise, judged from paired fresh runs.

A pair is the champion's exact weights and the owner's, trained on the same batches in the same fresh order. Its
difference d = u(champion) − u(own) is a log-loss ratio; negative is better. Looks are taken after 3, 5 and 8
pairs, as far as the budget pays for them; the one-sided level of .05 is shared by the looks that are planned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr, stdtrit

LOOKS = (3, 5, 8)
"""Numbers of pairs after which a verdict is taken."""

LEVELS = {1: (0.05,), 2: (0.03, 0.02), 3: (0.02, 0.015, 0.015)}
"""Number of planned looks → one-sided level of the test at each of them, .05 in all."""

SMALLEST_EFFECT = 0.01
"""A gain below 1 % is not worth a change."""

HELD_BACK_MARGIN = 0.01
"""How much worse the held-back loss may be, at its one-sided 90 % upper bound."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Squared deviations that other paired runs contribute to the pooled variance, and their degrees of freedom."""

    squares: float = 0.0
    freedom: int = 0

    @staticmethod
    def within(groups: Sequence[Sequence[float]]) -> Spread:
        """Returns the spread around each group's own mean."""
        squares = sum(_squares(group) for group in groups)
        return Spread(squares, sum(len(group) - 1 for group in groups if group))


NO_SPREAD = Spread()


@dataclass(frozen=True, slots=True)
class Gain:
    """A log-loss ratio of the selected to the owner's own weights; negative is better.

    Attributes:
        estimate: mean over the gate's pairs; exp(estimate) is the factor on the loss.
        low, high: two-sided 90 % interval.
        pairs: how many.
        steps: of each run; 0 where that is not known.
    """

    estimate: float
    low: float
    high: float
    pairs: int
    steps: int = 0

    @property
    def factor(self) -> float:
        """The factor on the loss: 0.5 halves it."""
        return math.exp(self.estimate)

    def __str__(self) -> str:
        low, high = math.exp(self.low), math.exp(self.high)
        runs = f"{self.pairs} paired runs{f' of {self.steps} steps' if self.steps else ''}"
        return f"loss × {self.factor:.3g} (90 % interval {low:.3g} … {high:.3g}, {runs})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Attributes:
        state: "win", "loss" (no further pair can help), or "undecided".
        gain: on training batches.
        held_back: on rows that the search never saw; None where there are none.
        why: in words.
        pairs_needed: pairs that would decide an effect of the size seen; None where that is not the question.
    """

    state: Literal["win", "loss", "undecided"]
    gain: Gain
    held_back: Gain | None
    why: str
    pairs_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One paired run, all in u.

    Attributes:
        training: difference of the tail losses at the end.
        halfway: the same at half the length.
        held_back: difference of the held-back losses towards the end; None where there are none.
        held_back_halfway: the same at half of those steps.
        by_batch: difference at the end on each held-back batch, in one order for all pairs; empty where unknown.
        own: the owner's tail loss, whose spread tells how much a batch order matters.
        steps: of each of the two runs.
    """

    training: float
    halfway: float
    held_back: float | None
    own: float
    held_back_halfway: float | None = None
    by_batch: tuple[float, ...] = ()
    steps: int = 0


def judge(pairs: Sequence[Pair], level: float, spread: Spread = NO_SPREAD) -> Verdict:
    """Returns the verdict after some pairs.

    Args:
        pairs: the gate's runs, three at least.
        level: one-sided, of the test at this look.
        spread: of the finalists' earlier paired runs, pooled into the variance.
    """
    gain, error, freedom = _estimate([pair.training for pair in pairs], spread)
    gain = dataclasses.replace(gain, steps=pairs[0].steps)
    seen = [pair.held_back for pair in pairs if pair.held_back is not None]
    held_back = dataclasses.replace(_estimate(seen)[0], steps=gain.steps) if len(seen) > 1 else None
    needed = max(SMALLEST_EFFECT, 0.5 * _deviation([pair.own for pair in pairs]))
    p_value = float(stdtr(freedom, gain.estimate / error)) if error > 0 else float(gain.estimate >= 0)
    if gain.estimate >= 0:
        return Verdict("loss", gain, held_back, "trained on fresh batch orders it is no better than the model's own")
    if p_value > level:
        return Verdict("undecided", gain, held_back, "its lead is within the noise", _pairs_needed(gain, error, pairs))
    if -gain.estimate < needed:
        why = f"its lead is smaller than what counts ({100 * needed:.2g} %: 1 %, or half of what a batch order does)"
        return Verdict("undecided", gain, held_back, why)
    if held_back is not None and max(_upper_bound(seen), _row_bound(pairs)) > HELD_BACK_MARGIN:
        return Verdict("undecided", gain, held_back, "held-back data do not confirm it")
    if _ahead([(pair.training, pair.halfway) for pair in pairs]) > -SMALLEST_EFFECT:
        return Verdict("undecided", gain, held_back, "its lead shrinks so fast that twice the steps would end it")
    going = [(p.held_back, p.held_back_halfway) for p in pairs]
    # What trains faster on few rows also overfits them sooner.
    if _ahead([(now, half) for now, half in going if now is not None and half is not None]) > HELD_BACK_MARGIN:
        return Verdict("undecided", gain, held_back, "on held-back data twice the steps would leave it behind")
    return Verdict("win", gain, held_back, "it beats the model's own weights on fresh batch orders")


def _estimate(values: Sequence[float], spread: Spread = NO_SPREAD) -> tuple[Gain, float, int]:
    """Returns mean and 90 % interval, the standard error, and its degrees of freedom."""
    count = len(values)
    freedom = count - 1 + spread.freedom
    mean = sum(values) / count
    error = math.sqrt((_squares(values) + spread.squares) / max(1, freedom) / count)
    reach = float(stdtrit(max(1, freedom), 0.95)) * error
    return Gain(mean, mean - reach, mean + reach, count), error, max(1, freedom)


def _upper_bound(values: Sequence[float]) -> float:
    """Returns the one-sided 90 % upper bound of a mean: what non-inferiority asks for."""
    gain, error, freedom = _estimate(values)
    return gain.estimate + float(stdtrit(freedom, 0.9)) * error


def _row_bound(pairs: Sequence[Pair]) -> float:
    """Returns the same bound for the choice of rows, from how much the held-back batches disagree; −inf if unknown.

    Pairs share their held-back rows, so that their own spread says nothing about other rows: on the eighty that a
    small table can spare, a twofold lead in training passed for a held-back lead that other rows did not confirm.
    """
    batches = list(zip(*(pair.by_batch for pair in pairs), strict=False))
    if len(batches) < 2:
        return -math.inf
    return _upper_bound([sum(one) / len(one) for one in batches])


def _squares(values: Sequence[float]) -> float:
    mean = sum(values) / max(1, len(values))
    return sum((value - mean) ** 2 for value in values)


def _deviation(values: Sequence[float]) -> float:
    return math.sqrt(_squares(values) / max(1, len(values) - 1))


def _ahead(differences: Sequence[tuple[float, float]]) -> float:
    """Returns the mean difference at twice the length, if it went on changing as it did since halfway; 0 of none.

    A lead may shrink, as every lead does when both trainings end well; it must not be about to vanish.

    Args:
        differences: of each pair, now and halfway.
    """
    return sum(2 * now - halfway for now, halfway in differences) / max(1, len(differences))


def _pairs_needed(gain: Gain, error: float, pairs: Sequence[Pair]) -> int:
    """Returns the pairs at which an effect and noise of this size would reach t = 3."""
    deviation = error * math.sqrt(len(pairs))
    return max(len(pairs) + 1, math.ceil((3.0 * deviation / min(gain.estimate, -1e-9)) ** 2))
