"""What the best of the rank benchmark's candidates lead by beyond what the owner's weights make up, step by step.

    python -m benchmarks.probes.net_leads

It is what `autoinit.judging.worth` expects of a search: on the tasks where the owner's weights train by themselves the
net lead of the best of 24 candidates after so many steps, and how it changes until the last; and from the rows of the
side-by-side benchmark how steeply their loss falls when they train longer than the task's own length.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

from autoinit.judging.score import Curve, Reference
from autoinit.judging.worth import BEGUN, net_lead

from ..common import jobs
from ..common.jobs import Row
from .agreement import by_task
from .predictors import curve_at, reference

STEPS = (8, 16, 30, 60, 120, 240)


def best(rows: Sequence[Row], steps: int) -> float:
    """Returns the largest net lead over the owner's weights of a task after so many steps."""
    own = next(row for row in rows if row["candidate"] == 0)
    known: tuple[Curve, Reference] = curve_at(own, steps), reference(own)
    others = [curve_at(row, steps) for row in rows if row is not own]
    return max(net_lead(one, *known) for one in others if one.diverged_at is None)


def by_itself(rows: Sequence[Row]) -> bool:
    """Whether the owner's weights of a task are below a constant guess's loss after 60 steps."""
    own = next(row for row in rows if row["candidate"] == 0)
    end = sum(map(reference(own).u, own["probe"]["losses"][45:60])) / 15
    return end < -BEGUN


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Returns a line per task, and by steps the deviation from what the best have after the last, by doubling."""
    lines = ["| task | " + " | ".join(map(str, STEPS)) + " |", "|---|" + "---:|" * len(STEPS)]
    found = {name: [best(mine, steps) for steps in STEPS] for name, mine in rows.items() if by_itself(mine)}
    lines += [f"| {name} | " + " | ".join(f"{value:+.2f}" for value in leads) + " |" for name, leads in found.items()]
    first = [leads[0] for leads in found.values()]
    middle, deviation = statistics.median(first), statistics.stdev(first)
    lines.append(f"\nAfter {STEPS[0]} steps: median {middle:+.2f}, deviation {deviation:.2f}.")
    for place, steps in enumerate(STEPS[:-1]):
        changes = [leads[-1] - leads[place] for leads in found.values()]
        size = math.sqrt(statistics.fmean(change**2 for change in changes) / math.log2(STEPS[-1] / steps))
        lines.append(f"From {steps} to {STEPS[-1]} steps it changes by {size:.2f} for the square root of a doubling.")
    return "\n".join(lines)


def slopes(rows: Sequence[Row], names: Collection[str]) -> list[float]:
    """Returns by how much the training loss falls from the task's length to its small allowance, a mean for each task.

    Args:
        rows: of the side-by-side benchmark; those of the owner's weights at the task's own rate count.
        names: of tasks.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == "default" and row["rate"] == "centre" and row["task"] in names:
            first, last = row["ends"]["apart"], row["ends"]["small"]
            fall = math.log(first["train"] / last["train"]) / math.log(last["steps"] / first["steps"])
            found.setdefault(row["task"], []).append(fall)
    return sorted(map(statistics.fmean, found.values()))


def main() -> None:
    """Prints the table."""
    rows = by_task(jobs.read_rows(jobs.RESULTS / "rank_agreement.jsonl"))
    print(table(rows))
    names = [name for name, mine in rows.items() if by_itself(mine)]
    found = slopes(jobs.read_rows(jobs.RESULTS / "versus.jsonl"), names)
    print(f"Nats for a factor of e in steps: {', '.join(f'{one:.2f}' for one in found)}.")


if __name__ == "__main__":
    main()
