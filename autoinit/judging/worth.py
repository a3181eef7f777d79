"""Whether a search goes on: what is left to find, on the gate's scale, against what its cost would bring as training.

**What is left to find.** Of weights that train by themselves the gate believes a lead only beyond what they make up in
as many steps again (`gate`). That net lead, x, changes from a few steps to the length of the gate's runs, so it is
taken for normally distributed around the leader's, or, where nobody has been tried, around what the best of the
well-known candidates has on such networks. What is found counts if it is worth a change, and is confirmed:

    found = CONFIRMED·E[x; x > WORTH]        x ~ N(m, GROWTH²·log2(gate / probe))

Nothing is found where the gate's runs are too short to believe a lead.

**What it costs.** The next candidates and the gate's first look, c steps. As many steps of plain training bring
s·log(1 + c/T), with T the length of the training and s the slope of log-loss over log-steps: that of the owner's own
curve, or, early on, what networks have later.

Owner's weights that may stand still are another matter: whoever trains rescues them, and no search is cut short there.
docs/scoring.md says what the numbers were chosen from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.special import ndtr, stdtr

from .. import text
from .gate import FEWEST_STEPS, STILL, WORTH
from .score import Curve, Reference, tail_loss

SURE = 0.01
"""The chance of so low a loss by luck at which the owner's weights count as training by themselves."""

BEGUN = 0.005
"""Nats below a constant guess's loss at which they do: of 90 runs of networks that stand still none is as low after 8
or 16 steps (docs/scoring.md)."""

SLOW = 0.035
"""Nats that the gate brings on average where they have begun, but may still count as standing still in its runs: of
nine runs of three such networks it won one, by 0.3."""

FIRST, FIRST_SPREAD = -0.02, 0.2
"""Median and deviation, from network to network that trains by itself, of the best candidate's net lead after eight
steps (docs/scoring.md)."""

GROWTH = 0.3
"""Deviation in nats of how the leader's net lead changes, for the square root of a doubling of the steps."""

CONFIRMED = 0.3
"""Share of the better starts that a gate confirms: 3 of 11 pairs were (benchmarks/choice/promises.py --power)."""

SLOPE = 0.5
"""Nats that a loss falls at least while the steps grow by a factor of e, once a training is under way: what the first
steps show is less (docs/scoring.md)."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What is known of a constant guess, from which the owner's weights have to get away.

    Attributes:
        spread: standard deviation of its loss in u from batch to batch; None where it is unknown.
        held_back: the lowest loss that any constant has on the very rows that were held back; None where unknown.
    """

    spread: float | None = None
    held_back: float | None = None


def trains(own: Curve, reference: Reference, guess: Guess, by: float = BEGUN) -> bool:
    """Returns whether the owner's weights have left the constant guess, beyond noise.

    Either loss tells: of BatchNorm's networks the held-back one lags behind at first, and of small batches the training
    loss says little. What does not look at its input cannot be below the best constant of the held-back rows.

    Args:
        own: of the training from the owner's weights.
        reference: of the task.
        guess: of the task.
        by: how far below they have to be, in u.
    """
    late = [reference.u(loss) for loss in own.losses[len(own.losses) // 2 :]]
    if own.diverged_at is not None or len(late) < 2:
        return False
    seen = own.held_back[-1][1] if own.held_back else math.inf
    if guess.held_back is not None and reference.u(seen) < reference.u(guess.held_back) - by:
        return True
    below = sum(late) / len(late) + by
    spread = _wobble(own, reference) if guess.spread is None else guess.spread
    if spread <= 0:
        return below < 0
    distance = below * math.sqrt(len(late)) / spread
    chance = ndtr(distance) if guess.spread is not None else stdtr(own.steps - 1, distance)
    return float(chance) < SURE


def _wobble(curve: Curve, reference: Reference) -> float:
    """Returns by how much losses differ from batch to batch, by the differences of neighbours: a trend is none."""
    values = [reference.u(loss) for loss in curve.losses]
    squares = [(after - before) ** 2 for before, after in pairwise(values)]
    return math.sqrt(sum(squares) / len(squares) / 2)


def net_lead(candidate: Curve, own: Curve, reference: Reference) -> float:
    """Returns a candidate's lead in nats beyond what the owner's weights make up in as many steps again.

    Args:
        candidate: its training.
        own: that of the owner's weights, as long at least.
        reference: of the task.
    """
    end, halfway = (tail_loss(_cut(own, steps), reference) for steps in (candidate.steps, candidate.steps // 2))
    lead = min(end, 0.0) - min(tail_loss(candidate, reference), 0.0)
    return lead - max(0.0, halfway - end)


def slope(own: Curve, reference: Reference) -> float:
    """Returns the nats that the owner's loss falls while the steps grow by a factor of e; `SLOPE` at least."""
    end, halfway = (tail_loss(_cut(own, steps), reference) for steps in (own.steps, own.steps // 2))
    return max(SLOPE, (halfway - end) / math.log(2))


def _cut(curve: Curve, steps: int) -> Curve:
    return dataclasses.replace(curve, losses=curve.losses[:steps])


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a search would do next.

    Attributes:
        steps: that it takes, the gate's first look included.
        gate: steps of each of the gate's runs.
        training: steps of the training that the weights are for.
        assumed: whether nobody said how long that is.
    """

    steps: float
    gate: int
    training: float
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Worth:
    """What is left to find, and what finding it costs, both in nats of the training's loss.

    Attributes:
        found: to be expected.
        cost: what as many steps of plain training bring.
        ahead: the steps.
    """

    found: float
    cost: float
    ahead: Ahead

    @property
    def pays(self) -> bool:
        """Whether the search is worth going on with."""
        return self.found >= self.cost

    @property
    def too_short(self) -> bool:
        """Whether nothing can be found because the gate's runs are too short to believe a lead."""
        return self.found == 0.0

    def __str__(self) -> str:
        if self.too_short:
            return f"the model's own weights train, and in runs of {self.ahead.gate} steps only a rescue is believed"
        about = "about " if self.ahead.assumed else ""
        return (
            f"what is left to find is worth less than its cost: by what was seen it would lower the loss by "
            f"{_percent(self.found)}, and its {self.ahead.steps:.0f} steps, added to a training of {about}"
            f"{self.ahead.training:,.0f}, by {_percent(self.cost)}"
        )


def _percent(nats: float) -> str:
    return text.percent(1 - math.exp(-nats))


def worth(own: Curve, others: Sequence[Curve], reference: Reference, guess: Guess, ahead: Ahead) -> Worth:
    """Returns what a search has to expect beside weights that train by themselves.

    Args:
        own: training of the owner's weights.
        others: those of the candidates so far, in the same batch order, none longer than the owner's.
        reference: of the task.
        guess: of the task.
        ahead: what comes next.
    """
    steps = max((curve.steps for curve in others), default=own.steps)
    leads = [net_lead(curve, own, reference) for curve in others if curve.steps == steps and curve.diverged_at is None]
    mean, deviation = (max(leads), 0.0) if leads else (FIRST, FIRST_SPREAD)
    doublings = max(1.0, math.log2(max(1, ahead.gate) / max(1, steps)))
    believed = ahead.gate >= FEWEST_STEPS or ahead.gate >= ahead.training
    found = CONFIRMED * _beyond(mean, math.hypot(deviation, GROWTH * math.sqrt(doublings))) if believed else 0.0
    if not trains(own, reference, guess, STILL):
        found = max(found, SLOW)
    return Worth(found, slope(own, reference) * math.log1p(ahead.steps / ahead.training), ahead)


def _beyond(mean: float, deviation: float) -> float:
    """Returns the expectation of a normally distributed lead where it is worth a change, and 0 elsewhere."""
    distance = (WORTH - mean) / deviation
    density = math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
    return mean * float(ndtr(-distance)) + deviation * density
