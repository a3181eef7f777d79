"""The gate: whether a champion beats the owner's own weights beyond noise, judged from paired fresh runs.

A pair is the champion's exact weights and the owner's, trained on the same batches in the same fresh order. Its
difference d = u(champion) − u(own) is a log-loss ratio; negative is better. Looks are taken after 3, 5 and 8
pairs, as far as the budget pays for them, the last after as many as it does; they share a one-sided level (`planned`).

What is measured in short runs is who trains sooner. Of that, two things hold for a long training (docs/scoring.md):

- a rescue: the owner's weights stand still at a constant guess, and from the champion's the loss falls;
- a lead that is larger than what the owner's weights will make up in as many steps again. On a logarithmic scale of
  time, that is what they made up over the second half of the run.

A loss above a constant guess's counts as the constant guess's: from there every net gets down in a few steps, and how
soon says nothing of how it trains.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr, stdtrit

from ..text import number

LOOKS = (3, 5, 8)
"""Numbers of pairs after which a verdict is taken, where the budget pays for the most of them."""

LEVEL_OF_A_PAIR = {3: 0.05 / 3, 4: 0.0070, 5: 0.0056, 6: 0.0034, 7: 0.0029, 8: 0.0026}
"""Pairs at the last look → one-sided level of the test at each look, for each of its pairs.

A single look has .05, two have .04 together, three .035: that is the probability that one of them passes where there is
no lead. Looks at the same pairs say much the same, so that their levels may add up to more (docs/scoring.md).
"""

SMALLEST_EFFECT = 0.01
"""A gain below 1 % is not worth a change."""

WORTH = 0.1
"""The lead in nats that has to be left when the owner's weights have had as many steps again (docs/scoring.md)."""

STILL = 0.02
"""Nats by which the owner's loss may lie below a constant guess's, and may have changed over the second half of a run,
where its weights stand still."""

RESCUE = 0.2
"""The lead in nats over weights that stand still which is believed of a run of any length (docs/scoring.md)."""

FEWEST_STEPS = 48
"""Steps of a run below which only a rescue is believed: all 13 recipes that led on a small table after 30 steps ended
behind on held-back rows (docs/scoring.md)."""

USUAL_LENGTH = 10.0
"""How many times as long as the gate's runs the training will be, where nobody says."""

HELD_BACK_MARGIN = 0.01
"""How much worse the held-back loss may be, at its one-sided 90 % upper bound."""

HELD_BACK_COVERAGE = 0.8
"""Of the interval of a held-back gain: its upper end is the one-sided 90 % bound that the verdict looks at."""


def planned(pairs: float) -> dict[int, float]:
    """Returns the looks that a gate takes which can pay for so many pairs, each with the level of its test."""
    last = int(min(max(LOOKS), max(min(LOOKS), pairs)))
    looks = [*(look for look in LOOKS if look < last), last]
    return {look: LEVEL_OF_A_PAIR[last] * look for look in looks}


@dataclass(frozen=True, slots=True)
class Spread:
    """Squared deviations that other paired runs contribute to the pooled variance, and their degrees of freedom."""

    squares: float = 0.0
    freedom: int = 0

    @staticmethod
    def within(groups: Sequence[Sequence[float]]) -> Spread:
        """Returns the spread around each group's own mean."""
        squares = sum(_squares(group) for group in groups)
        return Spread(squares, sum(len(group) - 1 for group in groups if group))


NO_SPREAD = Spread()


@dataclass(frozen=True, slots=True)
class Gain:
    """A log-loss ratio of the selected to the owner's own weights; negative is better.

    Of values that can be negative, such as an agent's return with its sign turned, it is their difference.

    Attributes:
        estimate: mean over the gate's pairs; exp(estimate) is the factor on the loss.
        low, high: two-sided interval, the one that the verdict was taken by.
        pairs: how many.
        steps: of each run; 0 where that is not known.
        coverage: of the interval.
        unit: of a difference, in the values' own units; None for ratios.
    """

    estimate: float
    low: float
    high: float
    pairs: int
    steps: int = 0
    coverage: float = 0.9
    unit: float | None = None

    @property
    def factor(self) -> float:
        """The factor on the loss: 0.5 halves it; of a difference, below 1 where it is lower."""
        return math.exp(self.estimate)

    @property
    def words(self) -> str:
        """What it is without its interval: "loss × 0.5", or "value lower by 12"."""
        if self.unit is None:
            return f"loss × {self.factor:.3g}"
        lower = -self.estimate * self.unit
        return f"value {'lower' if lower >= 0 else 'higher'} by {number(abs(lower))}"

    def __str__(self) -> str:
        if self.unit is None:
            low, high = (f"{math.exp(end):.3g}" for end in (self.low, self.high))
        else:
            sign = -1 if self.estimate <= 0 else 1
            low, high = (
                number(sign * end * self.unit) for end in sorted((self.low, self.high), key=lambda x: sign * x)
            )
        runs = f"{self.pairs} paired runs{f' of {self.steps} steps' if self.steps else ''}"
        return f"{self.words} ({100 * self.coverage:.3g} % interval {low} … {high}, {runs})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer.

    Attributes:
        state: "win", "loss" (no further pair can help), or "undecided".
        gain: on training batches.
        held_back: on rows that the search never saw; None where there are none.
        why: in words.
        pairs_needed: pairs that would decide an effect of the size seen; None where that is not the question.
        longer: how many times as long runs may decide it; None where that is not the question.
        open: whether more of something may still show a gain: pairs, steps or held-back rows. A lead that will not
            hold, or is too small for the most pairs, is an answer.
    """

    state: Literal["win", "loss", "undecided"]
    gain: Gain
    held_back: Gain | None
    why: str
    pairs_needed: int | None = None
    longer: float | None = None
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one arm of a pair showed, all but the losses in u.

    Attributes:
        end: mean of the last quarter of its batches.
        halfway: the same at half the length.
        loss: as `end`, as a plain loss.
        held_back: mean of the held-back losses towards the end; None where there are none.
        held_back_halfway: the same at half of those steps.
        groups: held-back loss at the end of each group of rows, relative to the reference (`Reference.relative`); the
            same groups in all runs; empty where unknown.
    """

    end: float
    halfway: float
    loss: float = math.nan
    held_back: float | None = None
    held_back_halfway: float | None = None
    groups: tuple[float, ...] = ()

    @property
    def progress(self) -> float:
        """What was gained over the second half, as if it were over twice the length; 0 of a loss that rose."""
        return max(0.0, self.halfway - self.end)

    @property
    def held_back_progress(self) -> float:
        """The same on held-back rows; 0 where they are not known at both places."""
        if self.held_back is None or self.held_back_halfway is None:
            return 0.0
        return max(0.0, self.held_back_halfway - self.held_back)


@dataclass(frozen=True, slots=True)
class Pair:
    """One paired run.

    Attributes:
        champion: the candidate's arm.
        own: the owner's.
        steps: of each of the two runs.
        rows: in each group of held-back rows.
        ratios: whether relative losses stay positive, so that what two arms are to each other is their ratio.
        unit: where they do not, the size of one unit of a difference, in the values' own units.
        guess: whether what they are relative to is a constant guess's loss, and not the owner's own first one.
    """

    champion: Arm
    own: Arm
    steps: int = 0
    rows: tuple[int, ...] = ()
    ratios: bool = True
    unit: float | None = None
    guess: bool = True

    @property
    def training(self) -> float:
        """Difference of the tail losses at the end."""
        return self.champion.end - self.own.end

    @property
    def lead(self) -> float:
        """The same, where what is above a constant guess counts as the constant guess."""
        return min(self.champion.end, 0.0) - min(self.own.end, 0.0)

    @property
    def halfway(self) -> float:
        """Difference of the tail losses at half the length."""
        return self.champion.halfway - self.own.halfway

    @property
    def held_back(self) -> float | None:
        """Difference of the held-back losses towards the end; None where there are none."""
        return _difference(self.champion.held_back, self.own.held_back)

    @property
    def held_back_halfway(self) -> float | None:
        """The same at half of those steps."""
        return _difference(self.champion.held_back_halfway, self.own.held_back_halfway)


def judge(pairs: Sequence[Pair], level: float, spread: Spread = NO_SPREAD, length: float = USUAL_LENGTH) -> Verdict:
    """Returns the verdict after some pairs.

    Args:
        pairs: the gate's runs, three at least.
        level: one-sided, of the test at this look.
        spread: of the finalists' earlier paired runs, pooled into the variance.
        length: how many times as long as these runs the training will be; 1 at least.
    """
    steps = pairs[0].steps
    lead, error, freedom = _estimate([pair.lead for pair in pairs], spread)
    gain = _estimate([pair.training for pair in pairs], spread, 1 - 2 * level)[0]
    gain = dataclasses.replace(gain, steps=steps, unit=pairs[0].unit)
    held_back = _held_back(pairs)
    verdict = _Verdicts(gain, held_back)
    if gain.estimate >= 0:
        return verdict.loss("trained on fresh batch orders it is no better than the model's own")
    if lead.estimate >= 0:
        if pairs[0].guess:
            return verdict.longer("so early both are no better than a constant guess", length)
        began = "so early both are above what the model's own weights began at"
        return verdict.longer(f"{began}, and lower is better", length)
    still = _stands_still(pairs)
    noisy = (float(stdtr(freedom, lead.estimate / error)) if error > 0 else 0.0) > level
    if noisy and not (still and _falls(pairs)):
        needed, why = _pairs_needed(lead, error, pairs), "its lead is within the noise"
        # Of weights that have not begun to train, and in very short runs, noise says nothing of what comes later.
        early = steps < FEWEST_STEPS or still
        return verdict.longer(why, length) if early and needed > max(LOOKS) else verdict.more_pairs(why, needed)
    rescued = still and -lead.estimate >= RESCUE
    if not rescued and (refusal := _no_lead(pairs, -lead.estimate, length)):
        return verdict.longer(refusal, length)
    if held_back is not None and held_back.high > HELD_BACK_MARGIN:
        return verdict.undecided("held-back data do not confirm it", held_back.estimate < -SMALLEST_EFFECT)
    doublings = math.log2(length)
    if _ahead([(pair.training, pair.halfway) for pair in pairs], doublings) > -SMALLEST_EFFECT:
        return verdict.undecided(f"its lead shrinks so fast that {_times(length)} the steps would end it")
    if not rescued and (refusal := _no_held_back_lead(pairs, length)):
        return verdict.longer(refusal, length)
    # What trains faster on few rows also overfits them sooner.
    if not rescued and (seen := _seen(pairs)) and _ahead(seen, doublings) > HELD_BACK_MARGIN:
        return verdict.undecided(f"on held-back data {_times(length)} the steps would leave it behind")
    reached = f"{number(_mean([pair.champion.loss for pair in pairs]))} in {steps} steps"
    own = number(_mean([pair.own.loss for pair in pairs]))
    what = "loss" if pairs[0].ratios else "value"
    if rescued:
        return verdict.win(f"from the model's own weights the {what} stays at {own}, from these it reaches {reached}")
    return verdict.win(f"from these weights the {what} reaches {reached}, from the model's own {own}")


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Makes verdicts of one look, which share their gains."""

    gain: Gain
    held_back: Gain | None

    def win(self, why: str) -> Verdict:
        return Verdict("win", self.gain, self.held_back, why)

    def loss(self, why: str) -> Verdict:
        return Verdict("loss", self.gain, self.held_back, why)

    def undecided(self, why: str, still_open: bool = False) -> Verdict:
        return Verdict("undecided", self.gain, self.held_back, why, open=still_open)

    def more_pairs(self, why: str, needed: int) -> Verdict:
        """No verdict on so few pairs; an effect that needs more than there ever are is none that matters."""
        return Verdict("undecided", self.gain, self.held_back, why, needed, open=needed <= max(LOOKS))

    def longer(self, why: str, length: float) -> Verdict:
        """No verdict at this length: longer runs may have one, up to that of the training, where that is longer."""
        if length <= 1:
            return self.undecided(why)
        times = min(length, max(2.0, FEWEST_STEPS / max(1, self.gain.steps)))
        return Verdict("undecided", self.gain, self.held_back, why, longer=times, open=True)


def _stands_still(pairs: Sequence[Pair]) -> bool:
    """Whether the owner's weights do not train: at a constant guess or above, and not on their way down."""
    end, halfway = _mean([pair.own.end for pair in pairs]), _mean([pair.own.halfway for pair in pairs])
    return end > -STILL and abs(halfway - end) < STILL


def _falls(pairs: Sequence[Pair]) -> bool:
    """Whether the champion trains, beside weights that stand still: it falls in most runs, and is behind in none.

    How soon a loss leaves a constant guess differs so much from run to run that the mean of three says little by a t
    test. Weights that stand still differ by hundredths of a nat, so that whoever falls by a rescue's lead trains.
    """
    leads = [-pair.lead for pair in pairs]
    return min(leads) > -STILL and 3 * sum(lead >= RESCUE for lead in leads) >= 2 * len(leads)


def _no_lead(pairs: Sequence[Pair], lead: float, length: float) -> str:
    """Returns why a lead over weights that train by themselves is none that holds; empty where it does."""
    if pairs[0].steps < FEWEST_STEPS and length > 1:
        return f"in runs of {pairs[0].steps} steps a lead tells who is sooner, and not who trains better"
    made_up = min(1.0, math.log2(length)) * _mean([pair.own.progress for pair in pairs])
    if lead < made_up + _worth(pairs):
        return f"the model's own weights are as good with {_times(min(2.0, length))} the steps, or nearly so"
    batch_order = 0.5 * _deviation([pair.own.end for pair in pairs])
    return "" if lead >= batch_order else "its lead is smaller than half of what a batch order does"


def _worth(pairs: Sequence[Pair]) -> float:
    """Returns the lead that has to be left: a tenth of the loss, or, of differences, of the way that was gone as well.

    A unit of those is about the first value, and an agent's return may grow to many times that.
    """
    gone = 1.0 if pairs[0].ratios else max(1.0, -_mean([pair.own.end for pair in pairs]))
    return WORTH * gone


def _no_held_back_lead(pairs: Sequence[Pair], length: float) -> str:
    """Returns why a lead does not hold on held-back rows at the training's length; empty where it does."""
    seen = _seen(pairs)
    made_up = min(1.0, math.log2(length)) * _mean([pair.own.held_back_progress for pair in pairs])
    if seen and -_mean([now for now, _ in seen]) < made_up:
        return f"on held-back data the model's own weights are as good with {_times(min(2.0, length))} the steps"
    return ""


def _seen(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Returns the differences of the held-back losses now and halfway, of the pairs where both are known."""
    known = [(pair.held_back, pair.held_back_halfway) for pair in pairs]
    return [(now, half) for now, half in known if now is not None and half is not None]


def _times(factor: float) -> str:
    return "twice" if factor == 2 else f"{factor:.3g} times"


def _estimate(values: Sequence[float], spread: Spread = NO_SPREAD, coverage: float = 0.9) -> tuple[Gain, float, int]:
    """Returns mean and interval, the standard error, and its degrees of freedom."""
    count = len(values)
    freedom = max(1, count - 1 + spread.freedom)
    mean = sum(values) / count
    error = math.sqrt((_squares(values) + spread.squares) / freedom / count)
    reach = _reach(error, freedom, coverage)
    return Gain(mean, mean - reach, mean + reach, count, coverage=coverage), error, freedom


def _reach(error: float, freedom: float, coverage: float) -> float:
    """Returns how far an interval of this two-sided coverage reaches on each side."""
    return float(stdtrit(freedom, 0.5 + coverage / 2)) * error


def _held_back(pairs: Sequence[Pair]) -> Gain | None:
    """Returns the gain on held-back rows; None where there are none, or of one pair only.

    Pairs share their held-back rows, so that their own spread says nothing about other rows: on the eighty that a
    small table can spare, a twofold lead in training passed for a held-back lead that other rows did not confirm. So
    the interval is the wider one of two: over batch orders, and over rows.
    """
    seen = [pair.held_back for pair in pairs if pair.held_back is not None]
    if len(seen) < 2:
        return None
    gain, error, freedom = _estimate(seen, coverage=HELD_BACK_COVERAGE)
    reach = max(_reach(error, freedom, HELD_BACK_COVERAGE), _row_reach(pairs))
    low, high = gain.estimate - reach, gain.estimate + reach
    return dataclasses.replace(gain, low=low, high=high, steps=pairs[0].steps, unit=pairs[0].unit)


def _row_reach(pairs: Sequence[Pair]) -> float:
    """Returns how far the same interval reaches for the choice of rows; 0 where groups of rows are not known.

    It is that of a ratio of two means over rows (Cochran 1977, Sampling Techniques, 6.4), which counts a row as a row
    in whatever group it stands; of losses that can be negative, that of a difference.
    """
    known = [pair for pair in pairs if pair.rows and pair.champion.groups and pair.own.groups]
    if not known or len(known[0].rows) < 2:
        return 0.0
    rows = known[0].rows
    champion = [_mean(values) for values in zip(*(pair.champion.groups for pair in known), strict=True)]
    own = [_mean(values) for values in zip(*(pair.own.groups for pair in known), strict=True)]
    total = sum(rows)
    shares = [count / total for count in rows]
    theirs, ours = (sum(w * x for w, x in zip(shares, arm, strict=True)) for arm in (own, champion))
    if known[0].ratios:
        ratio = ours / theirs
        residuals = [w * (x - ratio * y) / ours for w, x, y in zip(shares, champion, own, strict=True)]
    else:
        residuals = [w * (x - y - (ours - theirs)) for w, x, y in zip(shares, champion, own, strict=True)]
    count = len(rows)
    error = math.sqrt(sum(residual**2 for residual in residuals) * count / (count - 1))
    # As many degrees of freedom as equal groups would have that weigh alike: one of 13 rows beside 128 is none.
    freedom = 1 / sum(share**2 for share in shares) - 1
    return _reach(error, max(1.0, freedom), HELD_BACK_COVERAGE)


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    mean = sum(values) / max(1, len(values))
    return sum((value - mean) ** 2 for value in values)


def _deviation(values: Sequence[float]) -> float:
    return math.sqrt(_squares(values) / max(1, len(values) - 1))


def _ahead(differences: Sequence[tuple[float, float]], doublings: float) -> float:
    """Returns the mean difference at a longer length, if it goes on changing with each doubling as since halfway.

    A lead may shrink, as every lead does when both trainings end well; it must not be about to vanish.

    Args:
        differences: of each pair, now and halfway.
        doublings: log2 of how many times as long.
    """
    return _mean([now + doublings * (now - halfway) for now, halfway in differences])


def _pairs_needed(lead: Gain, error: float, pairs: Sequence[Pair]) -> int:
    """Returns the pairs at which an effect and noise of this size would reach t = 3."""
    deviation = error * math.sqrt(len(pairs))
    return max(len(pairs) + 1, math.ceil((3.0 * deviation / min(lead.estimate, -1e-9)) ** 2))
