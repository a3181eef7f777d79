"""The score's form and weights, chosen on one half of the tasks and reported on the other, and the other way round."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..common.jobs import Row
from .agreement import HALVES, agreement, eighth, regret, share
from .predictors import Form, ranked

LENGTHS = (8, 15, 30, None, 120, 240)
"""Probe lengths that a form is judged at; None is an eighth of the long training."""

GRID = tuple(
    Form(tail=tail, held_back=held_back, weight=weight, cap=cap, fading=fading)
    for tail, held_back in itertools.product((0.25, 0.5, 1.0), (0.0, 0.5, 1.0))
    for weight, cap, fading in [
        (0.0, 3.0, False),
        *itertools.product((0.02, 0.05, 0.1, 0.2), (3.0, 12.0), (False, True)),
    ]
)
"""Loss part x range part, in round values."""
LIBRARY, NO_RANGE, BEFORE = Form(weight=0.05, cap=3.0, fading=True), Form(cap=3.0), Form(weight=0.1)
"""The library's score; the loss alone; the form that the score had before."""
LEADERS = 5


@dataclass(frozen=True)
class Results:
    """One form's results: by (length, task) the share of the ceiling within ±1 (nan: no ranking) and the regret."""

    shares: Mapping[tuple[int | None, str], float]
    regrets: Mapping[tuple[int | None, str], float]

    def worth(self, tasks: Sequence[str]) -> float:
        """Returns what forms are chosen by: mean share less mean regret (up to 1 nat), over tasks and lengths."""
        shares = [value for (_, task), value in self.shares.items() if task in tasks and math.isfinite(value)]
        regrets = [min(1.0, value) for (_, task), value in self.regrets.items() if task in tasks]
        return statistics.fmean(shares) - statistics.fmean(regrets)

    def cells(self, tasks: Sequence[str]) -> list[str]:
        """Returns the figures of a table's row: at an eighth, then over all lengths."""
        eighths = [self.shares[None, task] for task in tasks if math.isfinite(self.shares[None, task])]
        lost = [self.regrets[None, task] for task in tasks]
        numbers = (statistics.median(eighths), statistics.fmean(eighths), statistics.median(lost), max(lost))
        return [*(f"{number:.2f}" for number in numbers), f"{self.worth(tasks):.3f}"]


def results(rows: Mapping[str, Sequence[Row]], form: Form) -> Results:
    """Returns a form's results on every task at every length, against training and validation loss together."""
    shares, regrets = {}, {}
    for length, (task, mine) in itertools.product(LENGTHS, rows.items()):
        values = [ranked(form(row, length or eighth(task))) for row in mine]
        found = share(*agreement(mine, values, "both"))
        shares[length, task] = max(-1.0, min(1.0, found)) if math.isfinite(found) else math.nan
        regrets[length, task] = regret(mine, values, "both")
    return Results(shares, regrets)


def describe(form: Form) -> str:
    """Returns a form in words."""
    batches = {0.25: "last quarter", 0.5: "last half", 1.0: "all"}[form.tail]
    loss = {0.0: f"batches ({batches})", 0.5: f"batches ({batches}) and held-back", 1.0: "held-back"}[form.held_back]
    if not form.weight:
        return loss
    capped = f"min({form.cap:.0f}, r)"
    return f"{loss} + {form.weight} {capped}" + (" min(1, 20/T)" if form.fading else "")


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Returns the best forms of each half with their figures there and on the other half."""
    found = {form: results(rows, form) for form in GRID}
    found.setdefault(BEFORE, results(rows, BEFORE))
    present = list(rows)
    lines: list[str] = []
    for place, title in enumerate(("first", "second")):
        own, other = ([task for task in HALVES[index] if task in present] for index in (place, 1 - place))
        best = sorted(found, key=lambda form: -found[form].worth(own))[:LEADERS]
        lines += [f"Chosen on the {title} half ({', '.join(own)}):", "", *_HEAD]
        for form in dict.fromkeys([*best, LIBRARY, NO_RANGE, BEFORE]):
            cells = [describe(form), *found[form].cells(own), *found[form].cells(other)]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


_HEAD = [
    "| form | own half, T = 1/8: median share | mean | median regret | worst | worth "
    "| other half, T = 1/8: median share | mean | median regret | worst | worth |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
]
