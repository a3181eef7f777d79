"""The statistics of the tables: paired intervals, non-inferiority, bootstrap over tasks, rank agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MARGIN = math.log(1.05)
"""A log-loss ratio up to this is no harm."""
HARM_LEVEL = 0.10
"""One-sided: the upper 90 % bound must stay below the margin."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds."""

    estimate: float
    low: float
    high: float


def paired_interval(differences: Sequence[float], confidence: float = 0.90) -> Interval:
    """Returns the mean of paired differences and its two-sided t interval; no width for equal differences."""
    values = np.asarray(differences, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class HarmTest:
    """Non-inferiority of one task.

    Attributes:
        upper: upper 90 % bound of the log ratio, gains beyond the margin counted as the margin.
        p: of the hypothesis that the mean log ratio is at least the margin.
    """

    upper: float
    p: float


def harm_test(log_ratios: Sequence[float]) -> HarmTest:
    """Returns the paired one-sided t-test of "the mean log ratio is at least log 1.05".

    A gain counts as at most the margin itself. That can only raise the mean, so an upper bound of it is one of the
    true mean too; without it one seed that gains much widens the interval, and its gain would look like harm.

    Args:
        log_ratios: log(selected/as-is), one per seed.
    """
    values = np.maximum(np.asarray(log_ratios, dtype=np.float64), -MARGIN)
    if len(values) < 2:
        return HarmTest(math.inf, 1.0)
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    error = spread / math.sqrt(len(values))
    freedom = len(values) - 1
    upper = mean + float(stats.t.ppf(1 - HARM_LEVEL, freedom)) * error
    if error == 0:
        return HarmTest(upper, 0.0 if mean < MARGIN else 1.0)
    return HarmTest(upper, float(stats.t.cdf((mean - MARGIN) / error, freedom)))


def holm(p_values: Sequence[float], level: float = HARM_LEVEL) -> list[bool]:
    """Returns which hypotheses are rejected by Holm's step-down procedure at this family-wise level."""
    rejected = [False] * len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[int(index)] = True
    return rejected


def geometric_mean(ratios: Sequence[float], *, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Returns the geometric mean with its 95 % percentile interval, bootstrapped over tasks."""
    if not ratios:
        return Interval(math.nan, math.nan, math.nan)
    logs = np.log(np.asarray(ratios, dtype=np.float64))
    draws = np.random.default_rng(seed).integers(0, len(logs), size=(resamples, len(logs)))
    low, high = np.percentile(logs[draws].mean(axis=1), [2.5, 97.5])
    return Interval(math.exp(float(logs.mean())), math.exp(float(low)), math.exp(float(high)))


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns Kendall's tau-b; nan where one side is constant. Infinite losses rank last and tie."""
    finite = [np.where(np.isfinite(side), side, 1e30) for side in (np.asarray(first), np.asarray(second))]
    return float(stats.kendalltau(finite[0], finite[1]).statistic)
