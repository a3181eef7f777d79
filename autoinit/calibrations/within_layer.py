"""Within-layer normalization: every output unit gets mean 0 and variance 1 on a batch.

Krähenbühl, Doersch, Donahue & Darrell 2016, "Data-dependent initializations of convolutional neural networks",
arXiv:1511.06856.
"""

from __future__ import annotations

from ..plans.fill import Adjustment
from .standardize import standardize
from .subject import Subject


def within_layer(subject: Subject) -> dict[str, Adjustment]:
    """Returns a factor per unit of each weight, and biases, that give every unit mean 0 and variance 1.

    Over the batch and all positions: W_i ← W_i/σ_i and b_i ← −μ_i/σ_i (the paper's algorithm 1), each layer seeing
    those before it normalized. Where a layer has no free bias, only the scale is set. Units that do not vary on
    the batch are left. The standard deviation aimed at is the recipe's own factor.

    The paper's second half, equal rates of change of all layers, is left out: it multiplies a layer and divides the
    one above, which keeps the function only in a chain of layers with nothing but ReLU between them.
    """
    return standardize(
        subject.model,
        subject.graph,
        subject.forward,
        subject.targets,
        per_unit=True,
        centre=True,
        further=subject.further(),
    )
