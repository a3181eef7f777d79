"""Successive halving replayed from the rank benchmark's recorded curves: what it picks, and what it would have cost.

    python -m benchmarks.probes.halving_replay

All candidates of a task are probed to the first rung, the better share goes on to the next, and so on; the owner's
weights always go on. The pick is the best at the last rung. It is compared with the best of an exhaustive run, which
trains every candidate to the end.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import TASKS, log_ratio
from .agreement import behind, by_task, long_losses
from .predictors import DYNAMIC, Dynamic

LADDERS: tuple[tuple[int, ...], ...] = (
    (2, 4, 8, 15, 30, 60, 120),
    (4, 15, 60, 120),
    (8, 15, 30, 60),
    (8, 15, 30, 60, 120),
    (8, 15, 30, 60, 120, 240),
    (8, 30, 120),
    (8, 30, 120, 240),
    (15, 30, 60, 120),
    (15, 30, 60, 120, 240),
    (15, 60, 240),
    (30, 60, 120),
    (30, 60, 120, 240),
    (60, 120, 240),
    (60,),
    (120,),
)
"""Rungs that are replayed, in steps."""
SHARES = (1 / 4, 1 / 3, 1 / 2)
"""Shares of the candidates that go on at a rung."""
CLOSE = math.log(1.05)


@dataclass(frozen=True)
class Replay:
    """One halving on one task.

    Attributes:
        pick: place of the chosen candidate.
        steps: spent over all candidates.
        share: of the steps of an exhaustive run.
        behind: log ratio of the pick's long-run loss to the best candidate's.
        fair: log ratio of the pick's to the choice of an exhaustive run of one seed, both judged on the other seed,
            mean of the two: the best candidate of a run is luck in part, and this takes it out.
    """

    pick: int
    steps: int
    share: float
    behind: float
    fair: float


def replay(rows: Sequence[Row], predictor: Dynamic, rungs: Sequence[int], kept: float, against: str = "both") -> Replay:
    """Returns what successive halving picks among one task's candidates, and its cost.

    Args:
        rows: of one task, the owner's weights first.
        predictor: the score.
        rungs: in steps, ascending.
        kept: share that goes on at each rung but the last.
        against: the long runs' loss to judge by, see `agreement.long_losses`.
    """
    alive = list(range(len(rows)))
    steps = before = 0
    for rung in rungs:
        steps += len(alive) * (rung - before)
        before = rung
        order = sorted(alive, key=lambda place: predictor(rows[place], rung))
        alive = order[: max(1, math.ceil(kept * len(order)))]
        if 0 not in alive and rung != rungs[-1]:
            alive.append(0)
    pick = alive[0]
    exhaustive = len(rows) * TASKS[rows[0]["task"]].steps
    return Replay(pick, steps, steps / exhaustive, behind(rows, against)[pick], fair(rows, pick, against))


def fair(rows: Sequence[Row], pick: int, against: str) -> float:
    """Returns how far a pick is behind the choice of an exhaustive run of one seed, on the other seed, in nats."""
    longs = list(zip(*(long_losses(row, against) for row in rows), strict=True))
    pairs = ((longs[0], longs[1]), (longs[1], longs[0]))
    return statistics.fmean(
        log_ratio(judge[pick], judge[min(range(len(rows)), key=lambda place: chooser[place])])
        for chooser, judge in pairs
    )


def table(rows: Sequence[Row], predictor: Dynamic, against: str = "both") -> str:
    """Returns one line per ladder and share: cost, and what the picks lose, over tasks."""
    tasks = by_task(rows)
    lines = [
        "| rungs | kept | steps, share of exhaustive | behind the best: median | mean | worst | within 5 % "
        "| behind an exhaustive choice: median | mean |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rungs in LADDERS:
        for kept in SHARES if len(rungs) > 1 else (1.0,):
            found = [replay(mine, predictor, rungs, kept, against) for mine in tasks.values()]
            lost, honest = [one.behind for one in found], [one.fair for one in found]
            cells = [
                "/".join(map(str, rungs)),
                f"{kept:.2f}",
                f"{statistics.median(one.share for one in found):.3f}",
                f"{statistics.median(lost):.3f}",
                f"{statistics.fmean(lost):.3f}",
                f"{max(lost):.2f}",
                f"{sum(one <= CLOSE for one in lost)} of {len(lost)}",
                f"{statistics.median(honest):+.3f}",
                f"{statistics.fmean(honest):+.3f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def per_task(rows: Sequence[Row], predictor: Dynamic, rungs: Sequence[int], kept: float) -> str:
    """Returns one line per task for one ladder."""
    lines = [
        "| task | pick | steps | share of exhaustive | behind the best | behind an exhaustive choice |",
        "|---|---|---|---|---|---|",
    ]
    for name, mine in by_task(rows).items():
        one = replay(mine, predictor, rungs, kept)
        cells = [name, mine[one.pick]["recipe"], str(one.steps), f"{one.share:.3f}"]
        lines.append("| " + " | ".join([*cells, f"{one.behind:.3f}", f"{one.fair:+.3f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    rows = jobs.read_rows(jobs.RESULTS / "rank_agreement.jsonl")
    print(table(rows, DYNAMIC["the library's score"]))


if __name__ == "__main__":
    main()
