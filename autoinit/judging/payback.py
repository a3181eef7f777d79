"""What a choice saves of a training: how much sooner it is where the owner's weights end, by the gate's own curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHED = 8
"""A run in so many parts: the mean of one stands for a loss, the owner's at its end, the champion's on its way."""


@dataclass(frozen=True, slots=True)
class Payback:
    """The steps of training that the chosen weights save, seen in the gate's runs.

    Attributes:
        steps: median over the pairs: so many steps before the end of a run the loss is, and stays, at or below what the
            owner's weights have at the end.
        low, high: the least and the most of the pairs, an interval for the median.
        at_least: whether the loss was there from the first, so that how much sooner cannot be told.
        pairs: how many.
        length: steps of each run, of which these are saved.
    """

    steps: int
    low: int
    high: int
    at_least: bool
    pairs: int
    length: int

    @property
    def coverage(self) -> float:
        """How sure it is that the median lies between the least and the most of so many pairs."""
        return 1.0 - 2.0 ** (1 - self.pairs)

    def __str__(self) -> str:
        least = "at least " if self.at_least else ""
        interval = f"{100 * self.coverage:.0f} % interval {self.low} … {self.high}, " if self.high > self.low else ""
        return f"{least}{self.steps} of the first {self.length} steps ({interval}{self.pairs} paired runs)"


def payback(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Payback | None:
    """Returns what the champion saves; None where there is no pair.

    Args:
        pairs: the training losses of the champion's run and of the owner's, step by step, on the same batches.
    """
    if not pairs:
        return None
    length = max(len(run) for pair in pairs for run in pair)
    saved = sorted(_saved(champion, own, length) for champion, own in pairs)
    middle = math.floor(statistics.median(saved))
    return Payback(middle, saved[0], saved[-1], middle >= length - _window(length), len(pairs), length)


def _saved(champion: Sequence[float], own: Sequence[float], length: int) -> int:
    """Returns how many steps before its end a run is, and stays, where the owner's ends; 0 where it never is."""
    target = _ends(own, length)
    means = _trailing(champion, length)
    above = [place for place, mean in enumerate(means) if not mean <= target]
    reached = above[-1] + 1 if above else 0
    return len(means) - 1 - reached if reached < len(means) else 0


def _ends(losses: Sequence[float], length: int) -> float:
    """Returns the loss at the end of a run; infinite of one that diverged, which anything is below."""
    last = _trailing(losses, length)[-1]
    return last if math.isfinite(last) else math.inf


def _trailing(losses: Sequence[float], length: int) -> list[float]:
    """Returns the mean over some steps up to each one that has so many before it; infinite where the run has ended."""
    window = _window(length)
    whole = [*losses, *[math.inf] * (length - len(losses))]
    return [math.fsum(whole[end - window : end]) / window for end in range(window, length + 1)]


def _window(length: int) -> int:
    return max(1, length // SMOOTHED)
