"""Record lines in numbers: gains with intervals, the share of each choice in the scores, thinned curves."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..knowledge.lines import Line
from ..study.results import AS_IS, Mean, StudyResults, standing, total

POINTS = 60
"""Most points of a drawn curve."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What came of one task in one stage.

    Attributes:
        name: of the task.
        info: as in `StudyResults.tasks`.
        gains: recipe → gain over as_is at the task's own learning rate, paired by seed; as_is is not among them.
        unfinished: recipe → runs at that learning rate that diverged or failed.
        best: as in `autoinit.study.results.Standing`.
        tuned: gain of `best` over as_is on the first seed, each at its own best learning rate; None where one only was
            tried.
    """

    name: str
    info: dict[str, Any]
    gains: dict[str, Mean]
    unfinished: dict[str, int]
    best: str | None
    tuned: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the scores' variance within tasks one choice explains.

    Attributes:
        name: of the recipe field.
        share: eta squared, the mean over tasks: variance between the field's values over all variance.
        chance: what a field of as many values explains on average where it has no effect.
        values: how many different ones there are at the most in a task.
        tasks: how many it was taken over.
    """

    name: str
    share: float
    chance: float
    values: int
    tasks: int

    @property
    def beyond_chance(self) -> float:
        """Of what chance leaves unexplained, the share that the field explains (epsilon squared)."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0


def stages(results: StudyResults) -> list[str]:
    """Returns the stages that there are lines of, the short one first."""
    present = {line["stage"] for line in results.lines}
    return [stage for stage in ("probe", "long") if stage in present]


def summarize(results: StudyResults, stage: str) -> list[TaskSummary]:
    """Returns a summary of each task in a stage, in the order of the study."""
    by_task = grouped((line for line in results.lines if line["stage"] == stage), lambda line: str(line["task"]))
    names = [*results.tasks, *sorted(by_task.keys() - results.tasks.keys())]
    return [_summary(name, results.tasks.get(name, {}), by_task.get(name, [])) for name in names]


def grouped(lines: Iterable[Line], key: Callable[[Line], str]) -> dict[str, list[Line]]:
    """Returns the lines by a key, in order of appearance."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return groups


def _summary(name: str, info: dict[str, Any], lines: list[Line]) -> TaskSummary:
    found = standing(lines)
    return TaskSummary(name, info, found.gains, found.unfinished, found.best, _tuned(lines, found.best))


def _tuned(lines: list[Line], best: str | None) -> float | None:
    swept = {line["seed"] for line in lines if line["lr_step"] != 0}
    if best is None or not swept:
        return None
    first = [line for line in lines if line["seed"] == min(swept)]

    def lowest(recipe: str) -> float | None:
        values = (total(line) for line in first if line["recipe"] == recipe)
        return min((value for value in values if value is not None), default=None)

    own, theirs = lowest(AS_IS), lowest(best)
    return None if own is None or theirs is None else own - theirs


def importance(results: StudyResults) -> list[Share]:
    """Returns the share of each recipe field that varies, the largest first; "learning rate" stands for its step.

    Scores are means over seeds at the task's own learning rate; the learning rate's own share is taken on the seeds
    on which it was varied.
    """
    shares: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    probes = (line for line in results.lines if line["stage"] == "probe" and total(line) is not None)
    for lines in grouped(probes, lambda line: str(line["task"])).values():
        by_recipe = grouped((line for line in lines if line["lr_step"] == 0), lambda line: str(line["recipe"]))
        scores = [math.fsum(total(line) or 0.0 for line in same) / len(same) for same in by_recipe.values()]
        fields = [same[0]["fields"] for same in by_recipe.values()]
        for name in sorted({name for held in fields for name in held}):
            # A line names only what is not at its default, so a field that is absent is one more value.
            _add(shares[name], [repr(held.get(name)) for held in fields], scores)
        swept = {line["seed"] for line in lines if line["lr_step"] != 0}
        varied = [line for line in lines if line["seed"] in swept]
        _add(
            shares["learning rate"], [str(line["lr_step"]) for line in varied], [total(line) or 0.0 for line in varied]
        )
    found = [_share(name, parts) for name, parts in shares.items() if parts]
    return sorted(found, key=lambda share: -share.share)


def by_value(results: StudyResults, name: str) -> list[tuple[Any, float]]:
    """Returns each value of a recipe's field with its mean score beside that of all in its task, the best first.

    Args:
        results: of a study.
        name: of the field; "learning rate" stands for its step.
    """
    sums: dict[str, list[float]] = defaultdict(list)
    values: dict[str, Any] = {}
    probes = (line for line in results.lines if line["stage"] == "probe" and total(line) is not None)
    for lines in grouped(probes, lambda line: str(line["task"])).values():
        swept = {line["seed"] for line in lines if line["lr_step"] != 0}
        rate = name == "learning rate"
        shown = [line for line in lines if (line["seed"] in swept if rate else line["lr_step"] == 0)]
        found = [line["lr_step"] if rate else line["fields"].get(name) for line in shown]
        scores = [total(line) or 0.0 for line in shown]
        if len({repr(value) for value in found}) < 2:
            continue
        middle = math.fsum(scores) / len(scores)
        by: dict[str, list[float]] = defaultdict(list)
        for value, score in zip(found, scores, strict=True):
            values[repr(value)] = value
            by[repr(value)].append(score - middle)
        for key, each in by.items():
            sums[key].append(math.fsum(each) / len(each))
    most = max((len(each) for each in sums.values()), default=0)
    means = [(values[key], math.fsum(each) / len(each)) for key, each in sums.items() if len(each) == most]
    return sorted(means, key=lambda pair: pair[1])


def _add(parts: list[tuple[float, float, int]], values: list[str], scores: list[float]) -> None:
    """Adds one task's eta squared, its expectation without an effect, and the number of values, if they vary."""
    kinds, count = Counter(values), len(scores)
    if not 1 < len(kinds) < count:
        return
    middle = math.fsum(scores) / count
    whole = math.fsum((score - middle) ** 2 for score in scores)
    if whole <= 1e-12:
        return
    sums: dict[str, float] = defaultdict(float)
    for value, score in zip(values, scores, strict=True):
        sums[value] += score
    between = math.fsum(kinds[value] * (sums[value] / kinds[value] - middle) ** 2 for value in kinds)
    parts.append((between / whole, (len(kinds) - 1) / (count - 1), len(kinds)))


def _share(name: str, parts: list[tuple[float, float, int]]) -> Share:
    count = len(parts)
    values = max(part[2] for part in parts)
    return Share(name, sum(part[0] for part in parts) / count, sum(part[1] for part in parts) / count, values, count)


def mean_curve(lines: Sequence[Line]) -> list[float]:
    """Returns the mean training loss of each step over some trials, as far as all of them have a finite one."""
    curves = [_finite_start(line["curve"]["losses"]) for line in lines if line["curve"] is not None]
    return [math.fsum(step) / len(step) for step in zip(*curves, strict=False)]


def _finite_start(losses: Sequence[float | None]) -> list[float]:
    found: list[float] = []
    for loss in losses:
        if loss is None or not math.isfinite(loss):
            break
        found.append(loss)
    return found


def mean_held_back(lines: Sequence[Line]) -> list[tuple[int, float]]:
    """Returns the mean held-back loss of some trials at each step where all of them have one."""
    points: dict[int, list[float]] = defaultdict(list)
    curves = [line["curve"] for line in lines if line["curve"] is not None]
    for curve in curves:
        for step, loss in curve["held_back"]:
            if loss is not None and math.isfinite(loss):
                points[step].append(loss)
    return [(step, math.fsum(each) / len(each)) for step, each in sorted(points.items()) if len(each) == len(curves)]
