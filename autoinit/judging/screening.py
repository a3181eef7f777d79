"""The first stage of the funnel: one forward and backward pass tells which weights cannot train at all."""

from __future__ import annotations

import math

from ..text import number
from .score import Glance, Reference

HOPELESS = 1000.0
"""How many times a constant guess's loss the first loss may be. Of 384 candidates, none of those above it came near the
best in the long run; of those above ten times, two that memorize small tables were among the best in training loss
(docs/scoring.md)."""


def veto(glance: Glance, reference: Reference) -> str:
    """Returns why weights are hopeless before their first step; an empty text where they may be tried.

    A veto is for what no training mends. It never ranks: among weights that pass, no signal of one pass tells on both
    halves of the benchmark's tasks where a training ends, and a range of gradients, however large, rules out some of
    the best (a zero head hides all gradients but its own).

    Args:
        glance: at the loss and the gradients of the first batch.
        reference: of the task.
    """
    if not math.isfinite(glance.gradient_norm):
        return "its first gradient is not finite"
    if glance.gradient_norm == 0.0:
        return "its first gradient is zero on every weight"
    if reference.guess and glance.loss > HOPELESS * reference.loss:
        times = number(glance.loss / reference.loss)
        return f"its first loss is {times} times that of a constant guess (more than {HOPELESS:.0f} is hopeless)"
    return ""
