"""What gates are replayed from: the leads of one start over another in all batch orders, and draws of them.

Each of two starts is the champion once, beside the other as the owner's. Its leads, moved so that their mean is 0, are
the boundary at which a win is false; moved by so many of their own standard deviations, they are an effect to find.
Gates are drawn from them with replacement, each lead with a little noise (a quarter of their deviation, which is then
what it was), since the same few would else meet too often.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from autoinit.judging.gate import LOOKS, RESCUE, STILL, WORTH

from ..common.jobs import Row

Array = NDArray[np.float64]

FEWEST, MOST = min(LOOKS), max(LOOKS)
DRAWS = 10_000
SMOOTHING = 0.25
NO_WIN = 0.4
"""A p-value of a lead that is no win, however little noise there is, and no loss."""


@dataclass(frozen=True)
class Case:
    """A champion beside an owner's start.

    Attributes:
        task: whose network it is.
        name: of the champion and the owner's start.
        leads: of each batch order.
        others: those of the third start over the same owner's, in the same orders: another finalist's.
        roughness: squared error that each order's lead would have if its steps were independent.
        halfway: each order's difference at half the length.
        asked: the least lead that the gate believes, however little noise there is.
    """

    task: str
    name: str
    leads: Array
    others: Array
    roughness: Array
    halfway: Array
    asked: float


def cases(rows: Sequence[Row]) -> list[Case]:
    """Returns every champion beside every owner's start, at the whole length of the runs and at half of it."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row["losses"] for row in rows if row["task"] == task]
        starts = {start: np.array([losses[start] for losses in mine]) for start in mine[0]}
        for champion, own in itertools.permutations(starts, 2):
            (third,) = set(starts) - {champion, own}
            for steps in (starts[own].shape[1], starts[own].shape[1] // 2):
                arms = [starts[start][:, :steps] for start in (champion, own, third)]
                found.append(_case(task, f"{champion} for {own}, {steps} steps", *arms))
    return [case for case in found if case.leads.std() > 0]


def _case(task: str, name: str, champion: Array, own: Array, third: Array) -> Case:
    steps = champion.shape[1]
    tail = (champion - own)[:, -math.ceil(steps / 4) :]
    before, base = _tail(own[:, : steps // 2]), _tail(own)
    leads, others = (np.minimum(_tail(arm), 0) - np.minimum(base, 0) for arm in (champion, third))
    still = base.mean() > -STILL and abs(before.mean() - base.mean()) < STILL
    return Case(
        task,
        name,
        leads,
        others,
        roughness=np.square(np.diff(tail, axis=1)).mean(1) / 2 / tail.shape[1],
        halfway=_tail(champion[:, : steps // 2]) - before,
        asked=RESCUE if still else WORTH + float(np.maximum(0, before - base).mean()),
    )


def _tail(losses: Array) -> Array:
    """Returns the mean over the last quarter of each run, as the gate has it."""
    return losses[:, -math.ceil(losses.shape[1] / 4) :].mean(1)


@dataclass(frozen=True)
class Gates:
    """Many gates of one case.

    Attributes:
        leads: [gates, pairs], of mean 0 and deviation 1.
        squares, freedom: what is pooled into each gate's variance.
        asked: the least lead that wins, in deviations.
    """

    leads: Array
    squares: Array | float = 0.0
    freedom: float = 0.0
    asked: float = 0.0

    def p_values(self, effect: float) -> dict[int, Array]:
        """Returns Student's one-sided p-values after three pairs and each further one, of a lead of that size."""
        leads, found = self.leads - effect, {}
        sums, sums_of_squares = np.cumsum(leads, 1), np.cumsum(leads * leads, 1)
        for count in range(FEWEST, leads.shape[1] + 1):
            mean = sums[:, count - 1] / count
            around = np.maximum(sums_of_squares[:, count - 1] - count * mean * mean, 1e-12)
            freedom = count - 1 + self.freedom
            p = special.stdtr(freedom, mean / np.sqrt((around + self.squares) / freedom / count))
            found[count] = np.where(-mean >= self.asked, p, np.maximum(p, NO_WIN))
        return found


class Draw:
    """Orders drawn for many gates of one case, and what each gate sees in them.

    Attributes:
        case: drawn from.
        orders: [gates, pairs], places of its orders.
        deviation: of its leads.
        leads: [gates, pairs], of mean 0 and deviation 1.

    Args:
        case: drawn from.
        generator: of the draws.
        count: how many gates.
    """

    def __init__(self, case: Case, generator: np.random.Generator, count: int = DRAWS) -> None:
        self.case, self._generator, self._count = case, generator, count
        self.orders = generator.integers(len(case.leads), size=(count, MOST))
        self.deviation = case.leads.std()
        self.leads = self._smooth(self._standard(case.leads)[self.orders], 1.0)

    def _standard(self, leads: Array) -> Array:
        return (leads - leads.mean()) / self.deviation

    def _smooth(self, drawn: Array, deviation: float) -> Array:
        noise = SMOOTHING * deviation * self._generator.standard_normal(drawn.shape)
        return (drawn + noise) / math.hypot(1, SMOOTHING)

    def alone(self) -> Gates:
        """Returns the gates by themselves."""
        return Gates(self.leads)

    def that_ask(self) -> Gates:
        """Returns them where a lead has to be as large as the gate asks anyway."""
        return Gates(self.leads, asked=self.case.asked / self.deviation)

    def with_finals(self) -> Gates:
        """Returns them with the spread of two finalists over two orders, of which the champion is one."""
        orders = self._generator.integers(len(self.case.leads), size=(self._count, 2))
        squares = 0.0
        for leads in (self.case.leads, self.case.others):
            values = self._standard(leads)
            first, second = self._smooth(values[orders], float(values.std())).T
            squares = squares + (first - second) ** 2 / 2
        return Gates(self.leads, squares, 2)
