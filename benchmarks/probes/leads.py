"""What a lead over the owner's weights after a few steps is worth: how often it does harm in the long run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..common.jobs import Row
from ..common.tasks import log_ratio
from .agreement import long_losses
from .predictors import DYNAMIC

SCORE = DYNAMIC["the library's score"]
STEPS = (8, 15, 30, 60, 120, 240)
BOUNDS = (0.01, 0.05, 0.2, math.inf)
"""Leads in nats of the score; below 1 % nobody leads."""
HARM = math.log(1.05)


def leads(rows: Mapping[str, Sequence[Row]], steps: int) -> list[tuple[float, float]]:
    """Returns (lead, long-run log ratio) to the owner's weights of every other candidate, over all tasks.

    Args:
        rows: of each task.
        steps: after which the library's score is taken; a lead is positive where the candidate's is lower.
    """
    found = []
    for mine in rows.values():
        own = next(row for row in mine if row["candidate"] == 0)
        for row in mine:
            if row is not own:
                found.append((SCORE(own, steps) - SCORE(row, steps), _ratio(row, own)))
    return found


def _ratio(row: Row, own: Row) -> float:
    both = zip(long_losses(row, "both"), long_losses(own, "both"), strict=True)
    return statistics.fmean(log_ratio(mine, other) for mine, other in both)


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Returns one line per number of steps, and for each size of the lead how many do harm, and the median loss."""
    head = [f"{low:g} to {high:g}" if math.isfinite(high) else f"above {low:g}" for low, high in pairwise(BOUNDS)]
    lines = ["| steps | " + " | ".join(head) + " | all |", "|---|" + "---|" * len(BOUNDS)]
    for steps in STEPS:
        found = leads(rows, steps)
        groups = [[ratio for lead, ratio in found if low < lead <= high] for low, high in pairwise(BOUNDS)]
        cells = [_harm(group) for group in [*groups, [ratio for group in groups for ratio in group]]]
        lines.append(f"| {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _harm(ratios: Sequence[float]) -> str:
    if not ratios:
        return "none"
    return f"{sum(ratio > HARM for ratio in ratios)} of {len(ratios)}, × {math.exp(statistics.median(ratios)):.2f}"
