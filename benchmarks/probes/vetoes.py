"""Rules that drop a candidate before its first step: how many they drop, and how good those end up in the long run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..common.jobs import Row
from .agreement import behind
from .predictors import STATIC, separation

Veto = Callable[[Row], bool]

CLOSE = math.log(1.05)
BEST_SHARE = 0.1
"""A veto must not drop what ends in the best tenth."""


def _not_finite(row: Row) -> bool:
    signals = row["signals"]
    return not (math.isfinite(signals["loss"]) and math.isfinite(signals["grad_norm"]))


def _no_gradient(row: Row) -> bool:
    return bool(row["signals"]["grad_norm"] == 0)


def _above(name: str, limit: float) -> Veto:
    return lambda row: STATIC[name](row) > limit


def _loss_above(times: float) -> Veto:
    return _above("initial loss", math.log(times))


VETOES: dict[str, Veto] = {
    "not finite": _not_finite,
    "all gradients zero": _no_gradient,
    "loss > 2 x reference": _loss_above(2),
    "loss > 5 x reference": _loss_above(5),
    "loss > 10 x reference": _loss_above(10),
    "loss > 30 x reference": _loss_above(30),
    "loss > 100 x reference": _loss_above(100),
    "loss > 1000 x reference": _loss_above(1000),
    "gradient norm > 1e3": lambda row: row["signals"]["grad_norm"] > 1e3,
    "gradient norm > 1e5": lambda row: row["signals"]["grad_norm"] > 1e5,
    "gradient norm < 1e-2": lambda row: row["signals"]["grad_norm"] < 1e-2,
    "gradient range > 3": _above("gradient range", 3),
    "gradient range > 6": _above("gradient range", 6),
    "gradient range > 9": _above("gradient range", 9),
    "gradient range > 12": _above("gradient range", 12),
    "range of forward std > 3": _above("range of forward std", 3),
    "rows alike: separation < 1e-12": lambda row: separation(row) < 1e-12,
    "rows alike: 0 < separation < 1e-12": lambda row: 0 < separation(row) < 1e-12,
    "rows alike: separation < 1e-6": lambda row: separation(row) < 1e-6,
}


@dataclass(frozen=True)
class Dropped:
    """What a veto does over all tasks.

    Attributes:
        count: candidates dropped.
        close: of those, how many end within 5 % of their task's best.
        tenth: how many are among the best tenth of their task.
        nearest: how far the nearest to its task's best ends behind it, in nats; inf where none is dropped.
        worst_loss: the most that any task's best candidate gets worse without the dropped ones, in nats.
        tasks: number of tasks where it drops any.
    """

    count: int
    close: int
    tenth: int
    nearest: float
    worst_loss: float
    tasks: int


def dropped(rows: Mapping[str, Sequence[Row]], veto: Veto, against: str = "both") -> Dropped:
    """Returns what a veto drops, and how good that is in the long run.

    Args:
        rows: of each task.
        veto: the rule.
        against: the long runs' loss, see `agreement.long_losses`.
    """
    gone: list[float] = []
    losses: list[float] = []
    tenth = tasks = 0
    for mine in rows.values():
        behinds = behind(mine, against)
        hits = [place for place, row in enumerate(mine) if veto(row)]
        order = sorted(range(len(mine)), key=lambda place: behinds[place])
        best = set(order[: math.ceil(BEST_SHARE * len(mine))])
        tenth += len(best.intersection(hits))
        gone += [behinds[place] for place in hits]
        losses.append(min((lost for place, lost in enumerate(behinds) if place not in hits), default=math.inf))
        tasks += bool(hits)
    close = sum(lost <= CLOSE for lost in gone)
    return Dropped(len(gone), close, tenth, min(gone, default=math.inf), max(losses), tasks)


def table(rows: Mapping[str, Sequence[Row]], against: str = "both") -> str:
    """Returns one line per rule."""
    lines = [
        "| drops a candidate where | dropped | on tasks | in the best tenth | within 5 % of the best "
        "| nearest to the best, nats | what a task's best loses, at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, veto in VETOES.items():
        found = dropped(rows, veto, against)
        nearest = f"{found.nearest:.2f}" if found.count else ""
        cells = [name, found.count, found.tasks, found.tenth, found.close, nearest, f"{found.worst_loss:.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def trains(rows: Sequence[Row]) -> bool:
    """Whether any candidate of a task gets to four fifths of the reference's loss: else all of them are dead alike."""
    lowest = min(statistics.fmean(row["long"]["train"]) for row in rows)
    return lowest < 0.8 * float(rows[0]["reference"])
