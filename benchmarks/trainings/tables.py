"""The tables of trainings that are no single loss, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..common.jobs import Row
from ..common.statistics import HARM_LEVEL, MARGIN, Interval, harm_test, holm, paired_interval
from ..common.tasks import log_ratio
from .registry import REGISTRY

STARTS = ("as-is", "literature", "selected")
MEASURES = {"last": "The last quarter of the training", "held_back": "What is held back"}
LIMIT = math.log(1000)
"""Differences end there, as log ratios do: a training that diverged stays a number."""


@dataclass(frozen=True)
class Pairs:
    """One start beside as-is on one training, by one measure.

    Attributes:
        differences: one per seed that has both; below 0 is better than as-is.
        logs: whether they are log ratios; else shares of as-is's size.
    """

    differences: tuple[float, ...]
    logs: bool

    @property
    def interval(self) -> Interval:
        """Their mean, with its two-sided 90 % interval."""
        return paired_interval(self.differences)


def report(rows: Sequence[Row]) -> str:
    """Returns all tables of the rows so far."""
    if not rows:
        return "There is no result yet."
    names = [name for name in REGISTRY if any(row["training"] == name for row in rows)]
    parts = [_head(rows), EXPLANATION]
    for measure, title in MEASURES.items():
        parts += [f"## {title}", table(rows, names, measure)]
    return "\n\n".join([*parts, "## What was chosen, and what it took", costs(rows, names)])


EXPLANATION = f"""Medians over seeds, lower is better. Differences to as-is are paired by seed: the mean with its 90 %
interval, as log ratios where all values of a training are positive. Where they are not (a return may be
negative), they are differences as a share of as-is's size (marked ±): its mean over the seeds without the sign, or its
standard deviation over them where that is larger, so that a mean near 0 makes no small difference large. A log ratio of
a few hundredths is such a share, too. Both end at ±{LIMIT:.1f}; a training that diverged counts as that.

**better**, **worse**: the interval lies below or above 0; **no difference**: it does not; **kept**: as-is stayed on
every seed, and the two trainings are one. **Harm** is a paired one-sided t-test of "the mean difference is at least
{MARGIN:.3f}" (5 %) at {100 * HARM_LEVEL:.0f} %, Holm over trainings; gains beyond the margin count as the margin. "no
harm": shown; "HARM": the interval lies above the margin; "not shown": neither."""


def _head(rows: Sequence[Row]) -> str:
    said = {key: ", ".join(sorted({str(row[key]) for row in rows})) for key in ("date", "commit", "torch")}
    seeds = len({row["seed"] for row in rows})
    return (
        f"# Trainings that are no single loss\n\n{len(rows)} runs, {seeds} seed{'s' * (seeds > 1)}; {said['date']}; "
        f"commit {said['commit']}; torch {said['torch']}."
    )


def values(rows: Sequence[Row], name: str, start: str, measure: str) -> dict[int, float]:
    """Returns a measure of one start by seed; of rows that are of one seed, the last."""
    return {row["seed"]: row[measure] for row in rows if row["training"] == name and row["start"] == start}


def pairs(rows: Sequence[Row], name: str, start: str, measure: str) -> Pairs:
    """Returns the differences of one start to as-is, in units that suit the training's values."""
    by = {one: values(rows, name, one, measure) for one in STARTS}
    logs = all(value > 0 for one in by.values() for value in one.values())
    seeds = sorted(by["as-is"].keys() & by[start].keys())
    both = [(by[start][seed], by["as-is"][seed]) for seed in seeds]
    if logs:
        return Pairs(tuple(log_ratio(mine, owners) for mine, owners in both), logs)
    unit = size([value for value in by["as-is"].values() if math.isfinite(value)])
    return Pairs(tuple(_share(mine, owners, unit) for mine, owners in both), logs)


def size(owners: Sequence[float]) -> float:
    """Returns the size of as-is's values: their mean without its sign, or their standard deviation if larger."""
    if not owners:
        return 1.0
    spread = float(np.std(owners, ddof=1)) if len(owners) > 1 else 0.0
    return max(abs(statistics.fmean(owners)), spread, 1e-12)


def _share(mine: float, owners: float, unit: float) -> float:
    if not math.isfinite(mine):
        return LIMIT if math.isfinite(owners) else 0.0
    if not math.isfinite(owners):
        return -LIMIT
    return max(-LIMIT, min(LIMIT, (mine - owners) / unit))


def verdict(differences: Sequence[float], kept: bool) -> str:
    """Returns whether a start is better than as-is beyond noise, in a word or two."""
    if kept:
        return "kept"
    if len(differences) < 2:
        return "one seed"
    interval = paired_interval(differences)
    if interval.high < 0:
        return "better"
    return "worse" if interval.low > 0 else "no difference"


def harms(found: Sequence[Sequence[float]]) -> list[str]:
    """Returns of each training whether harm is ruled out; those without a difference are not counted."""
    counted = [place for place, differences in enumerate(found) if differences]
    ruled_out = dict(zip(counted, holm([harm_test(found[place]).p for place in counted]), strict=True))
    return [_harm(differences, ruled_out.get(place)) for place, differences in enumerate(found)]


def _harm(differences: Sequence[float], ruled_out: bool | None) -> str:
    if ruled_out is None:
        return "-"
    if ruled_out:
        return "no harm"
    return "HARM" if paired_interval(differences).low > MARGIN else "not shown"


def table(rows: Sequence[Row], names: Sequence[str], measure: str) -> str:
    """Returns a line per training: the three starts, the differences to as-is, and what they say."""
    of_selected = [pairs(rows, name, "selected", measure) for name in names]
    harm = harms([one.differences for one in of_selected])
    lines = []
    for name, chosen, word in zip(names, of_selected, harm, strict=True):
        by = [values(rows, name, start, measure) for start in STARTS]
        stayed = [row["kept"] for row in rows if row["training"] == name and row["start"] == "selected"]
        kept = bool(stayed) and all(stayed)
        literature = pairs(rows, name, "literature", measure)
        said = verdict(chosen.differences, kept) if chosen.differences else "-"
        lines.append(
            [name, str(max(map(len, by))), *map(_median, by), _cell(literature), _cell(chosen),
             f"{sum(stayed)}/{len(stayed)}", said, word]
        )  # fmt: skip
    header = ["training", "seeds", *STARTS, "literature to as-is", "selected to as-is", "kept", "selected is", "harm"]
    return _markdown(header, lines)


def costs(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Returns a line per training: what a training and a search took, and the recipes that were chosen."""
    lines = []
    for name in names:
        mine = [row for row in rows if row["training"] == name]
        searched = [row for row in mine if row["start"] == "selected"]
        training = statistics.median(row["training_seconds"] for row in mine)
        cells = [f"{statistics.median(row['steps'] for row in mine):.0f}", f"{training:.0f} s", "-", "-", "-"]
        if searched:
            cells[2] = f"{statistics.median(row['select']['steps'] for row in searched):.0f}"
            cells[3] = f"{statistics.median(row['select']['seconds'] for row in searched):.0f} s"
            recipes = [row["recipe"] for row in searched if not row["kept"]]
            counts = {one: recipes.count(one) for one in dict.fromkeys(recipes)}
            cells[4] = ", ".join(f"{one} ({count})" for one, count in counts.items()) or "as-is"
        literature = {row["recipe"] for row in mine if row["start"] == "literature"}
        lines.append([name, *cells, ", ".join(sorted(literature)) or "-"])
    header = ["training", "steps", "takes", "a search's steps", "it takes", "chosen (seeds)", "literature"]
    return _markdown(header, lines)


def _median(by_seed: dict[int, float]) -> str:
    return f"{statistics.median(by_seed.values()):.4g}" if by_seed else "-"


def _cell(found: Pairs) -> str:
    if not found.differences:
        return "-"
    one, mark = found.interval, "" if found.logs else "± "
    if len(found.differences) < 2:
        return f"{mark}{one.estimate:.2f}"
    return f"{mark}{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
