"""What a search may spend, and what it has spent."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeVar

from .. import text
from ..errors import BudgetError

T = TypeVar("T")

FORWARD_COST = 1 / 3
"""A forward pass in training steps: backward costs about twice as much as forward."""

ENOUGH_STEPS = 50
"""Steps after which their average pace is trusted more than the first measurement."""

LONGEST_PROBE = 256
"""Steps of the top probe. Halving to 240 steps picks 2 % behind the best on the median task, to 120 steps 5 %, and on
average both pick alike: longer probes have little left to gain (docs/scoring.md)."""

LONGEST_GATE = 2 * LONGEST_PROBE
"""Steps of the gate's longest runs."""

FIRST_RUNG = 8
"""Steps before which nothing is judged, and of the least full probe. Halving from eight steps on costs half of halving
from thirty and picks about as well; from two or four on it loses the best (docs/scoring.md)."""

FEWEST_EVALUATED = 4
"""Held-back batches that are looked at however short a run is."""

BATCH = 8
"""Trials that are proposed together, and told together in the order of their numbers: the same ones however many
processes there are. A larger stack gets as many as it holds, and more processes as many as they are where the budget is
in seconds, which promise no such thing."""

WORTH_FINALS = 2000
"""Steps below which the finals' share does more for the gate: three pairs of 50 steps at 600, in the place of 27."""

SMALLEST_ALLOWANCE = 150
"""Steps below which no choice can be trusted: five candidates at 8 steps, and three pairs of as many. A lead after
eight steps turns out to do harm no more often than one after 120 (docs/scoring.md)."""

SHARE_OF_TRAINING = 0.05
"""What a search has of the steps of a training whose length is known, where no budget is given."""

ENOUGH_FOR_AN_ANSWER = 1000
"""Steps that pay for gate runs of 48 steps, below which only a rescue is believed."""

HURRIED_SECONDS, HURRIED_SHARE = 5.0, 0.1
"""What is left to a search that was interrupted: so many seconds, or this share of its budget."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits of a search; None for no limit. At least one is set.

    Make one to limit a search by its training steps or its candidates, `autoinit.select(model, data,
    budget=autoinit.Budget(steps=2000))`: the same seed then gives the same selection, on any number of processes. For
    wall time alone a text such as "5m" will do in its place. The first limit that is reached ends the search. A limit
    that is no positive number, or none at all, is a `BudgetError`.

    Attributes:
        seconds: wall time in seconds, from the call of `select` to its return.
        trials: number of candidates that are tried, the owner's own included.
        steps: number of training steps, or of their equivalents (a forward pass counts as a third).
    """

    seconds: float | None = None
    trials: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        limits: dict[str, Any] = {"seconds": self.seconds, "trials": self.trials, "steps": self.steps}
        if all(limit is None for limit in limits.values()):
            raise BudgetError("A Budget needs seconds, trials or steps. Got none of them.")
        for name, limit in limits.items():
            if limit is None:
                continue
            if not (_is_number(limit) and math.isfinite(limit) and limit > 0):
                raise BudgetError(f"A budget must be a positive, finite number. Got {name} = {limit!r}.")


def _is_number(value: Any) -> bool:
    """Whether a value is a real number of any library; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def parse_budget(budget: Any) -> Budget:
    """Returns a budget from seconds (60, "90s", "5m", "8h"), from itself, or a minute for None.

    Raises:
        BudgetError: zero, negative, not finite, or not understood.
    """
    if budget is None:
        return Budget(seconds=60.0)
    if isinstance(budget, Budget):
        return budget
    if _is_number(budget):
        return Budget(seconds=float(budget))
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", budget) if isinstance(budget, str) else None
    if match is None or match[2] not in _UNITS:
        raise BudgetError(
            f'A budget is a number of seconds, a text such as "90s", "5m" or "8h", or a Budget. Got {budget!r}.'
        )
    return Budget(seconds=float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True, slots=True)
class Allotted:
    """A budget, and how it came about.

    Attributes:
        budget: what may be spent.
        why: in words, where it is a share of a training; empty where it was given, or is the usual minute.
    """

    budget: Budget
    why: str = ""


def allotted(budget: Any, training_steps: float | None) -> Allotted:
    """Returns a budget: the given one, a share of a training whose length is known, or a minute.

    Raises:
        BudgetError: it is zero, negative, not finite, or not understood.
    """
    if budget is not None or training_steps is None:
        return Allotted(parse_budget(budget))
    steps = round(SHARE_OF_TRAINING * training_steps)
    share = f"{text.percent(SHARE_OF_TRAINING)} of a training of {training_steps:,.0f} steps"
    if steps >= ENOUGH_FOR_AN_ANSWER:
        return Allotted(Budget(steps=steps), share)
    why = f"the least that an answer takes, {ENOUGH_FOR_AN_ANSWER:,} steps: {share} would be {steps}"
    return Allotted(Budget(steps=ENOUGH_FOR_AN_ANSWER), why)


@dataclass
class Tally:
    """Counts what is spent, in training-step equivalents."""

    steps: float = 0.0

    def spend(self, *, steps: float = 0.0, forwards: float = 0.0) -> None:
        """Counts training steps and forward passes."""
        self.steps += steps + forwards * FORWARD_COST


@dataclass
class Aside:
    """Seconds that went to what is no training step, however many steps come of it.

    On a GPU weights may take longer to set than a hundred recorded steps, and a step as long to record.

    Attributes:
        seconds: in all.
        placing: of them, those that went to setting a candidate's weights.
        placed: how often some were set.
    """

    seconds: float = 0.0
    placing: float = 0.0
    placed: int = 0

    @property
    def each(self) -> float:
        """The seconds that setting one candidate's weights has taken."""
        return self.placing / self.placed if self.placed else 0.0

    @contextlib.contextmanager
    def counted(self, *, placing: bool = False) -> Iterator[None]:
        """Counts the time of a block.

        Args:
            placing: whether it sets a candidate's weights.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds += took
            if placing:
                self.placing, self.placed = self.placing + took, self.placed + 1


@dataclass(kw_only=True)
class Meter(Tally):
    """Counts steps and time, and says what is left.

    Attributes:
        budget: the limits.
        started: `time.perf_counter()` at the start.
        paced: (seconds, steps, seconds aside) when `pace` was called.
        step_seconds: what one step took then; 0 before.
        begun: seconds when the search began: shares of the time are counted from there.
        aside: what of the time was no step.
        deadline: seconds at which all has to be over, whatever the budget says; infinite until `hurry`.
    """

    budget: Budget
    started: float = field(default_factory=time.perf_counter)
    step_seconds: float = 0.0
    paced: tuple[float, float, float] = (0.0, 0.0, 0.0)
    begun: float = 0.0
    aside: Aside = field(default_factory=Aside)
    deadline: float = math.inf

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.started

    def pace(self, step_seconds: float, aside: Aside | None = None) -> None:
        """Takes note of a first measurement of a step; what is spent from here on refines it.

        Args:
            step_seconds: that one takes.
            aside: counts what of the time from here on is no step; None for what did before.
        """
        self.step_seconds, self.aside = step_seconds, aside or self.aside
        self.pace_again()

    def pace_again(self) -> None:
        """Forgets what was spent since the first measurement: it was at another pace than what follows."""
        self.paced = (self.seconds, self.steps, self.aside.seconds)

    def hurry(self) -> float:
        """Sets a deadline for whoever was asked to stop; returns the seconds until then.

        They are few, and a share of a budget in seconds where that is more.
        """
        seconds = max(HURRIED_SECONDS, HURRIED_SHARE * (self.budget.seconds or 0.0))
        if self.step_seconds <= 0 and self.steps > 0:  # no step was timed, as the clock did not count
            self.pace(self.seconds / self.steps)
        self.deadline = min(self.deadline, self.seconds + seconds)
        return self.deadline - self.seconds

    @property
    def hurried(self) -> bool:
        """Whether there is a deadline."""
        return self.deadline < math.inf

    def _seconds_per_step(self, *, alone: bool = False) -> float:
        """Returns what a step takes with everything around it, once enough have been seen; or without what is aside."""
        seconds, steps = self.seconds - self.paced[0], self.steps - self.paced[1]
        if alone:
            seconds = max(0.0, seconds - (self.aside.seconds - self.paced[2]))
        return seconds / steps if steps > ENOUGH_STEPS and seconds > 0 else self.step_seconds

    def left(self, until: float = 1.0, *, after: float = 0.0, places: int | None = None) -> float:
        """Returns the steps left until a share of the budget is spent; negative when overspent, inf when unlimited.

        Both limits count: the steps given, and the steps that the clock still pays for.

        Args:
            until: the share.
            after: steps that are taken before, by jobs like those so far.
            places: jobs that what is left is for, whose weights are set first; None for as much time aside as so far.
        """
        found = math.inf
        if self.budget.steps is not None:
            found = until * self.budget.steps - self.steps - after
        end = self.deadline
        if self.budget.seconds is not None:
            end = min(end, self.begun + until * (self.budget.seconds - self.begun))
        if end < math.inf and self.step_seconds > 0:
            seconds = end - self.seconds - (after * self._seconds_per_step() if after else 0.0)
            if places is not None:
                seconds -= places * self.aside.each
            found = min(found, seconds / self._seconds_per_step(alone=places is not None))
        return found

    def done(self) -> float:
        """Returns the share of the budget that is spent, at most 1; 0 where only trials are limited."""
        by_steps = self.steps / self.budget.steps if self.budget.steps is not None else 0.0
        by_clock = self.seconds / self.budget.seconds if self.budget.seconds is not None else 0.0
        return min(1.0, max(by_steps, by_clock))


def evaluated(held_back: Sequence[T], steps: int) -> list[T]:
    """Returns the held-back batches that a run of so many steps is evaluated on.

    One for every two steps, so that an evaluation costs a sixth of the run at most: on small batches of many rows it
    would else cost a short run several times its own steps. They are spread over all of them, which may be sorted.
    """
    count = min(len(held_back), max(FEWEST_EVALUATED, steps // 2))
    return [held_back[place * len(held_back) // count] for place in range(count)]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How an allowance of steps is laid out: about half to search, a fifth to the finals, a third to the gate.

    Attributes:
        rungs: steps at which candidates are halved, the last one the full probe.
        final: steps of a finalist's run.
        gate: steps of each run of the gate.
        search_until: share of the budget after which no new candidate starts.
        finals_until: share after which the finals end.
    """

    rungs: tuple[int, ...]
    final: int
    gate: int
    search_until: float
    finals_until: float

    @staticmethod
    def of(allowance: float, alone: float = math.inf) -> Schedule:
        """Returns the layout of an allowance of training steps; an infinite one gets the longest runs.

        Args:
            allowance: what all jobs together can take.
            alone: what one job after the other could take in the same time: the owner's own trial runs alone.
        """
        search_until, finals_until = (0.5, 0.7) if allowance >= WORTH_FINALS else (0.45, 0.45)
        top = int(min(LONGEST_PROBE, max(FIRST_RUNG, min(allowance / 8, alone / 4) * search_until)))
        rungs = tuple(top // 2**halvings for halvings in range(int(math.log2(top / FIRST_RUNG)), -1, -1))
        # The gate runs at the longest length that eight pairs can have, but three pairs are worth 240 steps.
        share = allowance * (1 - finals_until)
        gate = int(min(LONGEST_GATE, max(share / 16, min(LONGEST_PROBE, share / 6.6))))
        return Schedule(rungs, max(top, min(gate, LONGEST_PROBE)), gate, search_until, finals_until)
