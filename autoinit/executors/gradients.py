"""The gradients that a recorded pass writes at each replay, which the weights have to hold."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Gradients:
    """Gradients at their places in memory.

    Args:
        weights: that they are of.
        recorded: of each, as the recorded pass made it; None where it made none.
    """

    def __init__(self, weights: Sequence[Tensor], recorded: Sequence[Tensor | None]) -> None:
        self._pairs = list(zip(weights, recorded, strict=True))
        self._sample = next((pair for pair in self._pairs if pair[1] is not None), self._pairs[0])

    def hand_over(self) -> None:
        """Has the weights hold them after a replay, where a plain step has come between."""
        weight, recorded = self._sample  # all were set at once, so one of them tells
        if weight.grad is not recorded:
            for weight, recorded in self._pairs:
                weight.grad = recorded
