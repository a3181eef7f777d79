"""The second stage of the funnel: at each rung the worse half of the trials ends.

Trials are judged in the order of their numbers: each against those before it, whether or not they have ended. So the
decisions are the same however many trials run at a time.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence

from .trials import Trial

ENOUGH_GAINS = 4
"""Finished trials after which their largest gain is taken for what a trial can gain at most."""

SURPRISE = 1.5
"""How much more than any of them a trial may still gain: some nets stand still for long before they learn."""


class Halving:
    """Decides at each rung which trial goes on.

    Attributes:
        rungs: steps at which trials are judged, the last one the full probe.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = tuple(rungs)
        self._seen: defaultdict[int, list[float]] = defaultdict(list)
        self._reached: dict[int, dict[int, float]] = defaultdict(dict)
        self._leader = math.inf
        self._gains: defaultdict[int, list[float]] = defaultdict(list)

    def judge(self, number: int, steps: int, total: float) -> str:
        """Returns why a trial ends at a rung; an empty text where it goes on.

        Args:
            number: of the trial; trials come to each rung in this order.
            steps: of the rung.
            total: the trial's score there.
        """
        others = self._seen[steps]
        insort(others, total)
        self._reached[number][steps] = total
        if steps == self.rungs[-1]:
            return ""
        place, count = others.index(total) + 1, len(others)
        if place > math.ceil(count / 2):
            return f"in the worse half at step {steps}: {_ordinal(place)} of {count}"
        gains, behind = self._gains[steps], total - self._leader
        if len(gains) >= ENOUGH_GAINS and behind > SURPRISE * max(0.0, *gains):
            return (
                f"behind at step {steps}: it would have to gain {behind:.2g} by step {self.rungs[-1]} to catch the "
                f"leader, and none of {len(gains)} trials gained more than {max(gains):.2g}"
            )
        return ""

    def recall(self, totals: Mapping[int, Mapping[int, float]]) -> None:
        """Takes note of trials that were run in rounds, as if each had been judged where a round ended.

        Args:
            totals: of each trial by its number, the score after so many steps.
        """
        for number, reached in totals.items():
            self._reached[number] |= reached
            for steps, total in reached.items():
                insort(self._seen[steps], total)

    def learn(self, trials: Sequence[Trial]) -> None:
        """Takes note of finished trials: the leader's score, and how much scores still fall after each rung.

        Called between batches of trials, so that trials of one batch do not depend on which of them ended first.
        """
        for trial in trials:
            if trial.state != "complete":
                continue
            self._leader = min(self._leader, trial.total)
            for steps, total in self._reached[trial.number].items():
                self._gains[steps].append(total - trial.total)


def _ordinal(place: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(place % 10 if place % 100 not in (11, 12, 13) else 0, "th")
    return f"{place}{suffix}"
