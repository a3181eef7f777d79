"""The arithmetic of the side-by-side report: which rows are compared, at which rate, ranks and their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..common.jobs import Row
from ..common.statistics import Interval
from ..common.tasks import log_ratio
from ..common.training import NEVER_REACHED, RATIO_FLOOR
from .equal_cost import APART, SHARES
from .peers import METHODS, QUICK, RECOMMEND

PLACES = (*SHARES, APART)
CENTRE = "centre"
RESAMPLES = 10_000
Key = tuple[str, str, int, str]
"""Task, method, seed, rate."""


def indexed(rows: Sequence[Row]) -> dict[Key, Row]:
    """Returns the rows by key; of one key's, the last of those that were trained furthest."""
    order = list(SHARES)
    found: dict[Key, Row] = {}
    for row in rows:
        key = row["task"], row["method"], row["seed"], row["rate"]
        if key not in found or order.index(row["reach"]) >= order.index(found[key]["reach"]):
            found[key] = row
    return found


def end_of(row: Row, place: str) -> tuple[float, float] | None:
    """Returns training and validation loss of a row at a place; inf for a failure, None where it was not asked."""
    if row["failure"]:
        reached = place == APART or list(SHARES).index(place) <= list(SHARES).index(row["reach"])
        return (math.inf, math.inf) if reached else None
    if place not in row["ends"]:
        return None
    end = row["ends"][place]
    return (math.inf, math.inf) if end is None else (end["train"], end["val"])


@dataclass(frozen=True)
class Shown:
    """One method on one task, at one rate.

    Attributes:
        rate: key of the grid.
        seeds: that were compared.
        train: final training loss by seed; inf for a failure.
        val: validation loss by seed.
    """

    rate: str
    seeds: tuple[int, ...]
    train: tuple[float, ...]
    val: tuple[float, ...]

    def mean(self, kind: str) -> float:
        """Returns the mean over the seeds of "train" or "val"."""
        return statistics.fmean(self.train if kind == "train" else self.val)


@dataclass(frozen=True)
class View:
    """All methods that are compared under one allowance, on the tasks where all of them have been run.

    Attributes:
        place: the allowance, or `APART`.
        best: whether each method has its own best rate of the grid; else all have the centre.
        rates: the grid that all of them have, by task.
        shown: by task, then by method.
    """

    place: str
    best: bool
    rates: dict[str, tuple[str, ...]]
    shown: dict[str, dict[str, Shown]]

    @property
    def methods(self) -> list[str]:
        """Those compared, in the order of the table."""
        return [name for name in METHODS if any(name in by for by in self.shown.values())]

    @property
    def ranked(self) -> list[str]:
        """Those in the ranking: of `select`, the one whose budget the allowance holds, and the quick one."""
        own = [name for name in self.methods if METHODS[name].budget in ("", self.place)]
        return self.methods if self.place == APART else own

    @property
    def subjects(self) -> list[str]:
        """Those of ours that others are measured against: the largest and the quick `select`, what is recommended."""
        selects = [name for name in self.ranked if METHODS[name].budget]
        return selects[-1:] + [name for name in (QUICK, RECOMMEND) if name in self.ranked]


def view(found: dict[Key, Row], tasks: Sequence[str], place: str, best: bool) -> View:
    """Returns the comparison under one allowance.

    Args:
        found: all rows.
        tasks: to look at, in the order in which they are shown.
        place: "small", "middle", "large" or `APART`.
        best: whether to give each method its own best rate of the grid; on the seeds that have the whole of it.
    """
    present = {method for _, method, _, _ in found}
    methods = [name for name in METHODS if name in present and _stands(name, place, best)]
    rates: dict[str, tuple[str, ...]] = {}
    shown: dict[str, dict[str, Shown]] = {}
    for task in tasks:
        seeds, shared = _seeds(found, task, methods, place, CENTRE), [CENTRE]
        for rate in _other_rates(found, task) if best else []:
            if both := seeds & _seeds(found, task, methods, place, rate):
                seeds, shared = both, [*shared, rate]
        if not seeds or not methods:
            continue
        rates[task] = tuple(shared)
        shown[task] = {name: _at_best(found, task, name, tuple(sorted(seeds)), shared, place) for name in methods}
    return View(place, best, rates, shown)


def _stands(name: str, place: str, best: bool) -> bool:
    """Whether a method is compared there. The rest of the grid is run for what stands under the small allowance."""
    if place == APART:
        return not best or next(iter(SHARES)) in METHODS[name].places
    return place in METHODS[name].places


def _seeds(found: dict[Key, Row], task: str, methods: Sequence[str], place: str, rate: str) -> set[int]:
    """Returns the seeds with which every method has been run on a task at a rate, as far as the place asks."""
    keys = {seed: [(task, name, seed, rate) for name in methods] for seed in {key[2] for key in found}}
    return {seed for seed, mine in keys.items() if all(key in found and end_of(found[key], place) for key in mine)}


def _other_rates(found: dict[Key, Row], task: str) -> list[str]:
    return sorted({rate for name, _, _, rate in found if name == task and rate != CENTRE})


def _at_best(
    found: dict[Key, Row], task: str, method: str, seeds: tuple[int, ...], rates: Sequence[str], place: str
) -> Shown:
    """Returns a method at the rate with its lowest mean final training loss; the centre first among equals."""

    def at(rate: str) -> Shown:
        ends = [end_of(found[task, method, seed, rate], place) or (math.inf, math.inf) for seed in seeds]
        return Shown(rate, seeds, tuple(end[0] for end in ends), tuple(end[1] for end in ends))

    return min((at(rate) for rate in rates), key=lambda one: one.mean("train"))


def ranks(losses: Sequence[float]) -> list[float]:
    """Returns ranks from 1, the lowest loss first; equal losses, and all failures, share the mean of theirs."""
    return [float(rank) for rank in stats.rankdata(np.asarray(losses, dtype=np.float64), method="average")]


def rank_table(one: View, tasks: Sequence[str], kind: str) -> np.ndarray:
    """Returns [tasks, ranked methods] of ranks by mean loss over the seeds, of "train" or "val"."""
    rows = [ranks([one.shown[task][name].mean(kind) for name in one.ranked]) for task in tasks]
    return np.asarray(rows, dtype=np.float64).reshape(len(tasks), len(one.ranked))


def bootstrap(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """Returns the mean of each column with its 95 % percentile interval, rows drawn anew.

    The same rows are drawn for all columns, so that a column of differences is a paired comparison.
    """
    draws = np.random.default_rng(seed).integers(0, len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5], axis=0)
    return [Interval(*map(float, line)) for line in zip(values.mean(axis=0), low, high, strict=True)]


def log_ratios(one: View, task: str, method: str, kind: str, base: str = "default") -> list[float]:
    """Returns log(method/base) of a task's final losses, one per seed."""
    by = one.shown[task]
    pair = [by[name].train if kind == "train" else by[name].val for name in (method, base)]
    return [log_ratio(mine, other) for mine, other in zip(*pair, strict=True)]


def steps_to_target(row: Row, target: float) -> float:
    """Returns the steps until the smoothed training loss is at the target, as a share of the long training.

    The weights' own cost is added. At least 0.05; where the target is not reached within the long training it counts
    as twice its length, and for a row that failed as well.
    """
    if row["failure"]:
        return NEVER_REACHED
    cost, steps = row["cost"]["steps"] / row["steps"], row["steps"]
    first = next((place for place, loss in row["curve"] if place <= steps and loss <= target), None)
    return max(RATIO_FLOOR, cost + (NEVER_REACHED if first is None else first / steps))
