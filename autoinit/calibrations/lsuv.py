"""Layer-sequential unit variance: every layer's output gets variance 1 on a batch.

Mishkin & Matas 2016, "All you need is a good init", arXiv:1511.06422.
"""

from __future__ import annotations

from ..plans.fill import Adjustment
from .standardize import reason_to_skip, standardize
from .subject import Subject

__all__ = ["lsuv", "lsuv_centred", "reason_to_skip"]


def lsuv(subject: Subject, centre: bool = False) -> dict[str, Adjustment]:
    """Returns the factor of each weight that gives its output the variance 1 (the square of the recipe's own factor).

    The paper's procedure, one layer after the other, comes down to two or three forward passes, because each
    output is set right as soon as it is seen. The weights of nn.LSTM, nn.GRU and nn.RNN are left: what comes out
    of a cell is bounded by its gates, and no factor on one matrix gives it a variance.

    Args:
        subject: the drawn model; its weights are changed likewise.
        centre: also the value of each bias that gives every unit the mean 0. The variance is then that around each
            unit's own mean.
    """
    return standardize(
        subject.model, subject.graph, subject.forward, subject.targets, centre=centre, further=subject.further()
    )


def lsuv_centred(subject: Subject) -> dict[str, Adjustment]:
    """Returns LSUV's factors, and biases that give every unit the mean 0 on the batch."""
    return lsuv(subject, centre=True)
