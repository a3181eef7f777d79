"""What the rank benchmark measures of a predictor: agreement with the long trainings, and what its favourite loses."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..common.jobs import Row
from ..common.statistics import kendall
from ..common.tasks import TASKS, log_ratio
from .predictors import Dynamic, Static, ranked

NOISY = 0.2
"""A task whose own two long runs agree less than this has no ranking to find; it gets no share."""
CLEAR = math.log(1.05)
LOSSES = {"both": "training and validation loss", "train": "training loss", "val": "validation loss"}

HALVES: tuple[tuple[str, ...], tuple[str, ...]] = (tuple(TASKS)[::2], tuple(TASKS)[1::2])
"""Every other task of the table. It lists like by like, so both halves hold plain nets, a CNN, Transformers, others."""


@dataclass(frozen=True)
class Agreement:
    """How one predictor does on one task.

    Attributes:
        tau: Kendall's tau with the long runs' loss, mean of the two.
        ceiling: tau of one long run and the other.
        half_tau: tau among the better half of the candidates.
        half_ceiling: its ceiling.
        regret: log of the long-run loss of the favourite over the best candidate's, each the mean of the two runs.
        clear: share of the pairs more than 5 % apart in a long run that are ordered rightly, mean of the two runs; nan
            where there are none.
        clear_ceiling: the same of one long run and the other.
    """

    tau: float
    ceiling: float
    half_tau: float
    half_ceiling: float
    regret: float
    clear: float
    clear_ceiling: float

    @property
    def share(self) -> float:
        """The share of the ceiling; nan where the long runs themselves do not agree."""
        return share(self.tau, self.ceiling)

    @property
    def half_share(self) -> float:
        """The same among the better half."""
        return share(self.half_tau, self.half_ceiling)


def by_task(rows: Sequence[Row], least: int = 4) -> dict[str, list[Row]]:
    """Returns the rows of each task in the order of the candidates; tasks with fewer than `least` are left out."""
    ordered = sorted(rows, key=lambda row: int(row["candidate"]))
    found = {name: [row for row in ordered if row["task"] == name] for name in TASKS}
    return {name: mine for name, mine in found.items() if len(mine) >= least}


def eighth(task: str) -> int:
    """Returns an eighth of the task's long training, in steps."""
    return TASKS[task].steps // 8


def measured(rows: Sequence[Row], values: Sequence[float], against: str = "both") -> Agreement:
    """Returns how well a predictor's values rank one task's candidates.

    Args:
        rows: of one task.
        values: one per row, lower is better.
        against: see `long_losses`.
    """
    values = [ranked(value) for value in values]
    tau, ceiling = agreement(rows, values, against)
    chosen = best_half(rows, against)
    half = agreement([rows[i] for i in chosen], [values[i] for i in chosen], against)
    return Agreement(tau, ceiling, *half, regret(rows, values, against), *clear_agreement(rows, values, against))


def dynamic(
    rows: Mapping[str, Sequence[Row]], predictor: Dynamic, steps: int | None, against: str = "both"
) -> dict[str, Agreement]:
    """Returns a dynamic predictor's agreement per task; `steps` None is an eighth of each task's long training."""
    return {
        name: measured(mine, [predictor(row, steps or eighth(name)) for row in mine], against)
        for name, mine in rows.items()
    }


def static(rows: Mapping[str, Sequence[Row]], predictor: Static, against: str = "both") -> dict[str, Agreement]:
    """Returns a static predictor's agreement per task."""
    return {name: measured(mine, [predictor(row) for row in mine], against) for name, mine in rows.items()}


def long_losses(row: Row, against: str) -> list[float]:
    """Returns a candidate's losses of the long runs, one per seed.

    Args:
        row: of one candidate.
        against: "train", "val", or "both": their geometric mean, since the score looks at both.
    """
    if against != "both":
        return [float(value) for value in row["long"][against]]
    pairs = zip(row["long"]["train"], row["long"]["val"], strict=True)
    return [math.sqrt(training * validation) for training, validation in pairs]


def behind(rows: Sequence[Row], against: str) -> list[float]:
    """Returns each candidate's log ratio to the best one's long-run loss, both the mean of the two runs: 0 is best."""
    means = [statistics.fmean(log_ratio(loss, 1.0) for loss in long_losses(row, against)) for row in rows]
    return [mean - min(means) for mean in means]


def agreement(rows: Sequence[Row], values: Sequence[float], against: str) -> tuple[float, float]:
    """Returns Kendall's tau of the values with the long runs (mean of the two), and its ceiling."""
    longs = list(zip(*(long_losses(row, against) for row in rows), strict=True))
    return statistics.fmean(kendall(values, long) for long in longs), kendall(*longs)


def clear_agreement(rows: Sequence[Row], values: Sequence[float], against: str) -> tuple[float, float]:
    """Returns `clear_pairs` of the values with the long runs (mean of the two), and of one run with the other."""
    longs = list(zip(*(long_losses(row, against) for row in rows), strict=True))
    other_way = [clear_pairs(longs[0], longs[1]), clear_pairs(longs[1], longs[0])]
    return statistics.fmean(clear_pairs(values, long) for long in longs), statistics.fmean(other_way)


def clear_pairs(values: Sequence[float], losses: Sequence[float]) -> float:
    """Returns the share of pairs with losses more than 5 % apart that the values order alike; equal ones count half."""
    right = []
    for first, second in itertools.combinations(range(len(values)), 2):
        apart = log_ratio(losses[first], losses[second])
        if abs(apart) > CLEAR:
            order = values[first] - values[second]
            right.append(0.5 if order == 0 or math.isnan(order) else float(order * apart > 0))
    return statistics.fmean(right) if right else math.nan


def regret(rows: Sequence[Row], values: Sequence[float], against: str) -> float:
    """Returns how far the predictor's favourite is behind the best candidate, in nats."""
    favourite = min(range(len(rows)), key=lambda place: values[place])
    return behind(rows, against)[favourite]


def best_half(rows: Sequence[Row], against: str) -> list[int]:
    """Returns the places of the candidates whose long runs are the better half, by the sum of their ranks."""
    ranks = [0] * len(rows)
    for long in zip(*(long_losses(row, against) for row in rows), strict=True):
        for rank, place in enumerate(sorted(range(len(rows)), key=lambda i: long[i])):
            ranks[place] += rank
    return sorted(sorted(range(len(rows)), key=lambda i: ranks[i])[: len(rows) // 2])


def share(tau: float, ceiling: float) -> float:
    """Returns tau as a share of the ceiling; nan where the long runs themselves do not agree."""
    return tau / ceiling if math.isfinite(tau) and ceiling >= NOISY else math.nan


def median(values: Sequence[float]) -> float:
    """Returns the median of the finite values; nan where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan
