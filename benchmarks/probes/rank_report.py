"""The rank benchmark's tables: every predictor at every probe length, beside the ceiling."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from ..common.jobs import Row
from ..common.tasks import TASKS
from . import halving_replay, leads, score_forms, vetoes
from .agreement import HALVES, LOSSES, Agreement, by_task, dynamic, median, static
from .predictors import DYNAMIC, STATIC

LENGTHS: dict[str, Callable[[str], int]] = {
    **{str(steps): lambda task, steps=steps: steps for steps in (2, 4, 8, 15, 30, 60, 120, 240)},  # type: ignore[misc]
    "1/8": lambda task: TASKS[task].steps // 8,
    "1/4": lambda task: TASKS[task].steps // 4,
}
"""Probe lengths, in steps or as a share of the task's long training."""
LIBRARY = "the library's score"
LADDER, KEPT = (8, 15, 30, 60, 120, 240), 1 / 2
"""The halving whose picks are listed task by task."""

Rows = Mapping[str, Sequence[Row]]


def report(rows: Sequence[Row]) -> str:
    """Returns all tables but the halves'."""
    tasks = by_task(rows)
    parts = [_provenance(rows), "## The library's score, task by task", ""]
    parts += [f"{_per_task(tasks, length)}\n" for length in ("1/8", "30")]
    parts += ["## Dynamic predictors by probe length", "", _CELLS, ""]
    parts += [f"Against the long runs' {words}:\n\n{_dynamic(tasks, against)}\n" for against, words in LOSSES.items()]
    parts += ["The better half of the candidates only, training and validation loss:", "", _dynamic_half(tasks), ""]
    parts += ["## Static predictors", ""]
    parts += [f"Against the long runs' {words}:\n\n{_static(tasks, against)}\n" for against, words in LOSSES.items()]
    parts += ["Share of the ceiling task by task, training and validation loss:", "", _static_per_task(tasks), ""]
    parts += ["## Leads over the owner's weights", "", _LEADS, "", leads.table(tasks), ""]
    parts += ["## Vetoes", "", _vetoes(tasks), "## Successive halving, replayed", ""]
    parts += [halving_replay.table(rows, DYNAMIC[LIBRARY]), ""]
    ladder = "/".join(map(str, LADDER))
    parts += [f"Rungs {ladder}, {KEPT:.2f} kept, task by task:", ""]
    parts += [halving_replay.per_task(rows, DYNAMIC[LIBRARY], LADDER, KEPT)]
    return "\n".join(parts)


def halves(rows: Sequence[Row]) -> str:
    """Returns the tables of forms chosen on one half of the tasks and reported on the other."""
    return "## Forms of the score, chosen on one half of the tasks\n\n" + score_forms.table(by_task(rows))


def _provenance(rows: Sequence[Row]) -> str:
    dates = sorted({row["date"] for row in rows})
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    return f"{len(rows)} rows, {dates[0]} to {dates[-1]}, commits {commits}, torch {rows[0]['torch']}.\n"


_CELLS = (
    "Cells: median share of the ceiling / mean share (each within ±1) / mean regret in nats, over tasks; "
    "tasks whose two long runs agree below 0.2 get no share."
)

_LEADS = (
    "By the lead of the library's score, in nats, over the owner's weights after some steps: how many of those end "
    "more than 5 % above the owner's weights in the long run, and the median factor on its loss."
)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in body)])


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _clipped_mean(values: Sequence[float]) -> float:
    finite = [max(-1.0, min(1.0, value)) for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan


def _at(tasks: Rows, name: str, length: str, against: str) -> dict[str, Agreement]:
    """Returns a dynamic predictor's agreement per task at a named length."""
    found: dict[str, Agreement] = {}
    for task, mine in tasks.items():
        found |= dynamic({task: mine}, DYNAMIC[name], LENGTHS[length](task), against)
    return found


def _per_task(tasks: Rows, length: str) -> str:
    head = ["task", "half", "steps", "tau", "ceiling", "share", "best half: tau", "ceiling", "regret"]
    head += ["pairs > 5 % apart", "ceiling"]
    head += [f"{against}: {what}" for against in ("train", "val") for what in ("share", "regret")]
    by_loss = {against: _at(tasks, LIBRARY, length, against) for against in LOSSES}
    body = []
    for task, one in by_loss["both"].items():
        numbers = [one.tau, one.ceiling, one.share, one.half_tau, one.half_ceiling, one.regret]
        numbers += [one.clear, one.clear_ceiling]
        for against in ("train", "val"):
            numbers += [by_loss[against][task].share, by_loss[against][task].regret]
        half = "first" if task in HALVES[0] else "second"
        body.append([task, half, str(LENGTHS[length](task)), *map(_number, numbers)])
    for title, names in (("first", HALVES[0]), ("second", HALVES[1]), ("both", tuple(TASKS))):
        cells = [""] * len(head)
        cells[:2] = ["**median**", title]
        mine = [one for task, one in by_loss["both"].items() if task in names]
        cells[9] = _number(median([one.clear for one in mine]))
        cells[10] = _number(median([one.clear_ceiling for one in mine]))
        for against, share_at, regret_at in (("both", 5, 8), ("train", 11, 12), ("val", 13, 14)):
            ones = [one for task, one in by_loss[against].items() if task in names]
            cells[share_at] = _number(median([one.share for one in ones]))
            cells[regret_at] = _number(median([one.regret for one in ones]))
        body.append(cells)
    return f"T = {length}{'' if length.isdigit() else ' of the long training'}:\n\n" + _table(head, body)


def _dynamic(tasks: Rows, against: str) -> str:
    def cell(name: str, length: str) -> str:
        ones = list(_at(tasks, name, length, against).values())
        shares = [one.share for one in ones]
        numbers = (median(shares), _clipped_mean(shares), statistics.fmean(one.regret for one in ones))
        return " / ".join(_number(number) for number in numbers)

    return _table(["predictor", *LENGTHS], [[name, *(cell(name, length) for length in LENGTHS)] for name in DYNAMIC])


def _dynamic_half(tasks: Rows) -> str:
    def cell(name: str, length: str) -> str:
        shares = [one.half_share for one in _at(tasks, name, length, "both").values()]
        return f"{_number(median(shares))} / {_number(_clipped_mean(shares))}"

    return _table(["predictor", *LENGTHS], [[name, *(cell(name, length) for length in LENGTHS)] for name in DYNAMIC])


def _static(tasks: Rows, against: str) -> str:
    head = ["signal", "median share", "first half", "second half", "mean", "worst", "best"]
    head += ["better half of candidates: median share", "regret: median", "mean", "worst"]
    body = []
    for name, predictor in STATIC.items():
        ones = static(tasks, predictor, against)
        shares = [one.share for one in ones.values() if math.isfinite(one.share)]
        numbers = [median(shares)]
        numbers += [median([ones[task].share for task in half if task in ones]) for half in HALVES]
        numbers += [_clipped_mean(shares), min(shares, default=math.nan), max(shares, default=math.nan)]
        regrets = [one.regret for one in ones.values()]
        numbers += [median([one.half_share for one in ones.values()])]
        numbers += [median(regrets), statistics.fmean(regrets), max(regrets)]
        body.append([name, *map(_number, numbers)])
    return _table(head, body)


def _static_per_task(tasks: Rows) -> str:
    body = [
        [name, *(_number(one.share) for one in static(tasks, predictor).values())] for name, predictor in STATIC.items()
    ]
    return _table(["signal", *tasks], body)


def _vetoes(tasks: Rows) -> str:
    training = {task: mine for task, mine in tasks.items() if vetoes.trains(mine)}
    left_out = ", ".join(task for task in tasks if task not in training) or "none"
    parts = [f"Tasks on which no candidate gets to four fifths of the reference's loss are left out: {left_out}.", ""]
    for against, words in LOSSES.items():
        parts += [f"Against the long runs' {words}:", "", vetoes.table(training, against), ""]
    return "\n".join(parts)
