"""What `select` promises, at the lengths that people train: never worse, and nothing taken for better that is not.

    python -m benchmarks.choice.promises --workers 2                      # 34 tasks, four budgets, three seeds
    python -m benchmarks.choice.promises --budgets 160,600 --seeds 1      # a part of it
    python -m benchmarks.choice.promises --redraws 300 --workers 2        # how often another seed's draw is preferred
    python -m benchmarks.choice.promises --power --workers 2              # which effects of known size are found
    python -m benchmarks.choice.promises --report                         # the tables of the runs so far

**Held at length**: for every task, budget and seed the weights that `select` leaves are trained beside the owner's, on
the same batches in an order that the search never saw: for as many steps as the gate's runs had, four times and ten
times as many, and for the task's own length. Where the owner's weights are kept, all ratios are 1.

**Redraws**: the candidates are the owner's own model under other seeds, so that none of them is better but by luck. The
best of eight after a probe meets the owner's weights in the gate, as a search's champion does.

**Power**: the owner's weights are worse by a known cause, and the better ones meet them in gates of several lengths.
Weights at half and at twice their library's scale on five networks, GPT-2's position table at 0.02 where 0.01 is said
to be better. What is better in truth is seen by training both for the task's own length.

A finished (task, budget, seed) or (task, seed) is one line in `results/`, and is not run again.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Sequence
from typing import Any

from scipy import stats
from torch import nn

from ..common import jobs
from ..common.jobs import Row
from ..common.statistics import MARGIN, harm_test, holm, paired_interval
from ..common.tasks import log_ratio
from ..common.training import final_loss, losses, validate
from .contests import EFFECTS, GATES, REDRAW_TASKS, effect, redraw
from .promise_tasks import PROMISES

HELD = jobs.RESULTS / "promises.jsonl"
REDRAWS = jobs.RESULTS / "promises_redraws.jsonl"
POWER = jobs.RESULTS / "promises_power.jsonl"

TIMES = (1, 4, 10)
"""Lengths of the trainings, in those of the gate's runs."""
USUAL_GATE = 50
"""Steps that stand for the gate's where it was not reached."""


def budget_of(text: str) -> Any:
    """Returns the budget that "160" (steps) or "20s" (seconds) stands for."""
    import autoinit

    return text if text.endswith("s") else autoinit.Budget(steps=int(text))


def held(name: str, budget: str, seed: int) -> Row:
    """Returns the row of one task, budget and seed."""
    import autoinit

    task = PROMISES[name]
    model = task.make_model(seed)
    candidate = copy.deepcopy(model)
    selection = autoinit.select(
        candidate,
        task.train_batches(seed),
        loss=task.loss,
        optimizer=task.optimizer,
        budget=budget_of(budget),
        seed=seed,
        concurrency=1,
    )
    gate = max((int(steps) for steps in selection.trials[selection.trials.stage == "gate"].steps), default=USUAL_GATE)
    lengths = sorted({*(times * gate for times in TIMES), task.steps})
    own = curves(model, name, seed, lengths) if not selection.kept else {}
    return {
        "task": name,
        "budget": budget,
        "seed": seed,
        "kept": selection.kept,
        "recipe": selection.recipe.key,
        "why": selection.why,
        "gate": gate,
        "steps": task.steps,
        "search_steps": selection.cost.steps,
        "seconds": selection.cost.seconds,
        "own": own,
        "selected": curves(candidate, name, seed, lengths) if not selection.kept else {},
        **jobs.provenance(),
    }


def curves(model: nn.Module, name: str, seed: int, lengths: Sequence[int]) -> dict[str, list[float]]:
    """Returns (training, validation) loss after each of some lengths of one training of a copy of the model."""
    task = PROMISES[name]
    model = copy.deepcopy(model).train()
    seen: list[float] = []
    found: dict[str, list[float]] = {}
    for loss in losses(model, task, seed, max(lengths)):
        seen.append(loss)
        if len(seen) in lengths and math.isfinite(loss):
            found[str(len(seen))] = [final_loss(seen, len(seen)), validate(model, task)]
            model.train()
    return {str(length): found.get(str(length), [math.inf, math.inf]) for length in lengths}


# The tables


def ratios(row: Row, length: str, side: int) -> float:
    """Returns log(selected/own) of one row after a length ("1", "4", "10" of the gate's runs, "own" of the task's)."""
    if row["kept"]:
        return 0.0
    steps = str(row["steps"] if length == "own" else int(length) * row["gate"])
    return log_ratio(row["selected"][steps][side], row["own"][steps][side])


def report() -> str:
    """Returns the tables of the runs so far."""
    rows = jobs.read_rows(HELD)
    parts = [_held_table(rows)] if rows else []
    if redraws := jobs.read_rows(REDRAWS):
        parts.append(_redraw_table(redraws))
    if effects := jobs.read_rows(POWER):
        parts.append(_power_table(effects))
    return "\n\n".join(parts) or "There is no result yet."


def _held_table(rows: Sequence[Row]) -> str:
    budgets = sorted({row["budget"] for row in rows}, key=lambda text: (text.endswith("s"), len(text), text))
    lines = [
        "| budget | trained for | runs, kept | training: worst, harm | validation: the same | not kept: mean ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for budget in budgets:
        mine = [row for row in rows if row["budget"] == budget]
        kept = sum(row["kept"] for row in mine)
        for length in ("1", "4", "10", "own"):
            cells = [_side(mine, length, side) for side in (0, 1)]
            moved = [row for row in mine if not row["kept"]]
            means = [
                math.exp(sum(ratios(row, length, side) for row in moved) / len(moved)) if moved else 1.0
                for side in (0, 1)
            ]
            what = "the task's own length" if length == "own" else f"{length} × the gate's"
            lines.append(
                f"| {budget} | {what} | {len(mine)}, {kept} | {cells[0]} | {cells[1]} | "
                f"{means[0]:.2f} / {means[1]:.2f} |"
            )
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    tasks = len({row["task"] for row in rows})
    head = f"Held at length: {tasks} tasks, {', '.join(dates)}, commit {', '.join(commits)}."
    notes = (
        "Worst: the largest single ratio, and its task. Harm: tasks where the interval of three seeds shows it, "
        "of those with so many; with fewer seeds, single runs above 1.05."
    )
    return "\n".join([head, "", *lines, "", notes])


def _side(rows: Sequence[Row], length: str, side: int) -> str:
    by_task: dict[str, list[float]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(ratios(row, length, side))
    worst = max(by_task, key=lambda task: max(by_task[task]))
    several = {task: values for task, values in by_task.items() if len(values) > 2}
    if several:
        shown = sum(paired_interval(values).low > MARGIN for values in several.values())
        free = sum(holm([harm_test(values).p for values in several.values()]))
        harm = f"{shown} of {len(several)} tasks, its absence on {free}"
    else:
        harm = f"{sum(value > MARGIN for values in by_task.values() for value in values)} runs above 1.05"
    return f"{math.exp(max(by_task[worst])):.2f} ({worst}), {harm}"


def _redraw_table(rows: Sequence[Row]) -> str:
    won = sum(row["won"] for row in rows)
    upper = float(stats.beta.ppf(0.95, won + 1, len(rows) - won))
    by_task = {task: [row["won"] for row in rows if row["task"] == task] for task in sorted({r["task"] for r in rows})}
    each = ", ".join(f"{task} {sum(found)} of {len(found)}" for task, found in by_task.items())
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    return (
        f"Redraws: {won} of {len(rows)} were preferred ({100 * won / len(rows):.1f} %, upper 95 % bound "
        f"{100 * upper:.1f} %): {each}. {', '.join(dates)}, commit {', '.join(commits)}."
    )


def _power_table(rows: Sequence[Row]) -> str:
    lines = [
        "| the owner's start | loss from the better one, training / validation | "
        + " | ".join(f"found in {steps} steps" for steps in GATES)
        + " |",
        "|---|---:|" + "---:|" * len(GATES),
    ]
    for name in EFFECTS:
        mine = [row for row in rows if row["task"] == name]
        if not mine:
            continue
        ends = [math.exp(sum(row[side] for row in mine) / len(mine)) for side in ("training", "validation")]
        found = [f"{sum(row['gates'][str(steps)][0] == 'win' for row in mine)} of {len(mine)}" for steps in GATES]
        lines.append(f"| {name} | × {ends[0]:.2f} / × {ends[1]:.2f} | {' | '.join(found)} |")
    true = [row for row in rows if max(row["training"], row["validation"]) < -MARGIN]
    shares = ", ".join(
        f"{sum(row['gates'][str(steps)][0] == 'win' for row in true)} in gates of {steps} steps ({budget})"
        for steps, budget in GATES.items()
    )
    worse = [row for row in rows if min(row["training"], row["validation"]) > MARGIN]
    wrong = sum(any(state == "win" for state, _ in row["gates"].values()) for row in worse)
    tail = (
        f"Of {len(true)} pairs whose better start ends more than 5 % lower in both losses are found: {shares}. Of "
        f"{len(worse)} where it ends more than 5 % higher in both, it was taken for better in {wrong}."
    )
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    return "\n".join([f"Power: {', '.join(dates)}, commit {', '.join(commits)}.", "", *lines, "", tail])


def _describe(row: Row) -> str:
    if "gates" in row:
        found = ", ".join(f"{steps}: {state}" for steps, (state, _) in row["gates"].items())
        return f"{row['task']} seed {row['seed']}: {row['training']:+.2f} / {row['validation']:+.2f}; {found}"
    if "won" in row:
        return f"{row['task']} seed {row['seed']}: {'WON' if row['won'] else 'not preferred'} ({row['why']})"
    if row["kept"]:
        return f"{row['task']} {row['budget']} seed {row['seed']}: kept ({row['why'][:90]})"
    ends = " ".join(
        f"{length}: {math.exp(ratios(row, length, 0)):.2f}/{math.exp(ratios(row, length, 1)):.2f}"
        for length in ("1", "4", "10", "own")
    )
    return f"{row['task']} {row['budget']} seed {row['seed']}: {row['recipe']} {ends}"


def main() -> None:
    """Runs what the result files lack, and prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, or all")
    parser.add_argument("--budgets", default="160,600,20s,60s", help="steps, or seconds with an s")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--redraws", type=int, help="run so many redraws, and nothing else")
    parser.add_argument("--power", action="store_true", help="run the effects of known size, and nothing else")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the tables of the runs so far")
    arguments = parser.parse_args()
    if arguments.redraws:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(REDRAWS)}
        wanted = [
            (REDRAW_TASKS[place % len(REDRAW_TASKS)], place // len(REDRAW_TASKS)) for place in range(arguments.redraws)
        ]
        jobs.run_all(redraw, [one for one in wanted if one not in done], REDRAWS, arguments.workers, _describe)
    elif arguments.power:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(POWER)}
        pairs = [(name, seed) for seed in range(arguments.seeds) for name in EFFECTS]
        jobs.run_all(effect, [one for one in pairs if one not in done], POWER, arguments.workers, _describe)
    elif not arguments.report:
        known = {(row["task"], row["budget"], row["seed"]) for row in jobs.read_rows(HELD)}
        names = list(PROMISES) if arguments.tasks == "all" else arguments.tasks.split(",")
        # Seeds outermost: an interrupted run has whole seeds of all tasks.
        pending = [
            (name, budget, seed)
            for seed in range(arguments.seeds)
            for budget in arguments.budgets.split(",")
            for name in names
            if (name, budget, seed) not in known
        ]
        jobs.run_all(held, pending, HELD, arguments.workers, _describe)
    print(report())


if __name__ == "__main__":
    main()
