"""What the gate would have taken of the rank benchmark's candidates, and how their long trainings ended.

    python -m benchmarks.probes.verdicts

Each probe of a candidate stands beside that of the owner's weights, cut at so many steps, as if it were a pair of the
gate; three of them alike, so that no lead is within the noise and only the rules for what a lead is worth decide. The
long trainings have another draw, other batch orders, and the task's own length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from autoinit.judging.gate import Verdict, judge
from autoinit.judging.score import Curve

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import TASKS, log_ratio
from .agreement import HALVES, by_task, long_losses
from .predictors import curve_at, reference

STEPS = (8, 16, 30, 60, 120, 240)
HARM = math.log(1.05)
PAIRS, LEVEL = 3, 0.05


def verdict(row: Row, own: Row, steps: int) -> Verdict:
    """Returns the gate's verdict on a candidate's probe after so many steps."""
    from autoinit.search.duel import pair_of

    arms = [_looked_at_twice(curve_at(one, steps), steps) for one in (row, own)]
    pair = pair_of(arms[0], arms[1], reference(own), 1, ())
    return judge([pair] * PAIRS, LEVEL, length=max(1.0, TASKS[row["task"]].steps / steps))


def _looked_at_twice(curve: Curve, steps: int) -> Curve:
    """Returns the curve with its held-back loss at the half and at the end, or at the last look before."""
    looks = [[seen for seen in curve.held_back if seen[0] <= limit][-1:] for limit in (steps // 2, steps)]
    return dataclasses.replace(curve, held_back=tuple(one for look in looks for one in look))


def table(rows: Mapping[str, Sequence[Row]], tasks: Sequence[str]) -> str:
    """Returns a line per number of steps: how many candidates win, and how many of them end behind."""
    lines = [
        "| steps | win | of them rescues | end above 1.05 in training | in validation | training: mean, worst |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for steps in STEPS:
        won = []
        for name in tasks:
            own = next(row for row in rows[name] if row["candidate"] == 0)
            judged = [(row, verdict(row, own, steps)) for row in rows[name] if row is not own]
            won += [(row, own, found) for row, found in judged if found.state == "win"]
        ends = {side: [_ratio(row, own, side) for row, own, _ in won] for side in ("train", "val")}
        rescues = sum("stays at" in found.why for *_, found in won)
        behind = [sum(ratio > HARM for ratio in ends[side]) for side in ("train", "val")]
        mean = f"× {math.exp(sum(ends['train']) / len(won)):.2f}, × {math.exp(max(ends['train'])):.2f}" if won else "–"
        lines.append(f"| {steps} | {len(won)} | {rescues} | {behind[0]} | {behind[1]} | {mean} |")
    return "\n".join(lines)


def _ratio(row: Row, own: Row, side: str) -> float:
    """Returns the log of the long trainings' loss over that from the owner's weights."""
    mine, theirs = long_losses(row, side), long_losses(own, side)
    return sum(log_ratio(one, other) for one, other in zip(mine, theirs, strict=True)) / len(mine)


def main() -> None:
    """Prints the table of each half of the tasks. The rules were compared on both, so neither is untouched."""
    rows = by_task(jobs.read_rows(jobs.RESULTS / "rank_agreement.jsonl"))
    for half in HALVES:
        print(f"{', '.join(half)}:\n\n{table(rows, half)}\n")


if __name__ == "__main__":
    main()
