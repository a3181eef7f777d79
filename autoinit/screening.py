"""The first stage of the funnel: one forward and backward pass tells which weights cannot train at all."""

from __future__ import annotations

import math

from .score import CEILING, Glance, Reference
from .text import number


def veto(glance: Glance, reference: Reference) -> str:
    """Returns why weights are hopeless before their first step; an empty text where they may be tried.

    A veto is for what no short training can mend. It never ranks: among weights that pass, what one pass tells says
    little of where a training ends.

    Args:
        glance: at the loss and the gradients of the first batch.
        reference: of the task.
    """
    if not math.isfinite(glance.gradient_norm):
        return "its first gradient is not finite"
    if glance.gradient_norm == 0.0:
        return "its first gradient is zero on every weight"
    if reference.scale is None and glance.loss > CEILING * reference.loss:
        times = number(glance.loss / reference.loss)
        return f"its first loss is {times} times that of a constant guess (more than {CEILING:.0f} is hopeless)"
    return ""
