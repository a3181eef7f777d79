"""Which entries of the catalogue win where: every named recipe on every task that it is for.

    python -m benchmarks.choice.catalogue --workers 2     # runs what is missing, then prints the tables
    python -m benchmarks.choice.catalogue --report

Each recipe is drawn and trained for half of the task's steps at the task's one learning rate, from up to two seeds,
beside the owner's own weights. Reported is the geometric mean of the loss ratio to the owner's weights, training and
validation loss together. Nothing is chosen here: this is what `select` has to choose from.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import SPECIALISTS, TASKS, BenchTask, log_ratio
from ..common.training import train

ALL = {**TASKS, **SPECIALISTS}
SEEDS = (11, 12)
COSTLY = {"gradinit", "metainit", "nio"}
"""Calibrations that cost hundreds of steps: run from the first seed only."""
PATH = jobs.RESULTS / "catalogue.jsonl"
BEST = 5


def run_one(name: str, recipe: str, seed: int) -> Row:
    """Returns the losses of one recipe on one task, or that the recipe was refused."""
    import autoinit

    task = ALL[name]
    model = task.make_model(seed)
    row: Row = {"task": name, "recipe": recipe, "seed": seed, **jobs.provenance()}
    start = time.perf_counter()
    try:
        autoinit.apply_(model, recipe, task.train_batches(seed), seed=seed, loss=task.loss)
    except autoinit.RecipeError as refusal:
        return {**row, "refused": str(refusal)}
    seconds = time.perf_counter() - start
    run = train(model, task, seed, steps=task.steps // 2)
    return {**row, "seconds": seconds, "step_seconds": run.seconds / len(run.curve), "train": run.final_train,
            "val": run.final_val}  # fmt: skip


def ratios(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Returns task → recipe → mean log ratio of its losses to the owner's, over seeds and over both losses."""
    owners = {(row["task"], row["seed"]): row for row in rows if row["recipe"] == "as_is"}
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        owner = owners.get((row["task"], row["seed"]))
        if owner is None or "refused" in row:
            continue
        pair = [log_ratio(row[kind], owner[kind]) for kind in ("train", "val")]
        found[row["task"]][row["recipe"]].append(statistics.fmean(pair))
    return {task: {name: statistics.fmean(values) for name, values in by.items()} for task, by in found.items()}


def report(rows: Sequence[Row]) -> str:
    """Returns two tables: the best recipes of each task, and how each recipe does over all tasks."""
    table = ratios(rows)
    lines = ["| task | tried | the best, loss as a share of the owner's |", "| --- | --- | --- |"]
    for task, by in table.items():
        best = sorted(by, key=lambda name: by[name])[:BEST]
        cells = ", ".join(f"{name} {math.exp(by[name]):.2f}" for name in best)
        lines.append(f"| {ALL[task].family} | {len(by)} | {cells} |")
    lines += ["", "| recipe | tasks | better by 5 % | worse by 5 % | median share | best on | cost in steps |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    names = dict.fromkeys(name for by in table.values() for name in by)
    for name in sorted(names, key=lambda name: statistics.median(by[name] for by in table.values() if name in by)):
        lines.append(_recipe_line(name, table, rows))
    return "\n".join(lines)


def _recipe_line(name: str, table: dict[str, dict[str, float]], rows: Sequence[Row]) -> str:
    mine = {task: by[name] for task, by in table.items() if name in by}
    better = sum(value < -math.log(1.05) for value in mine.values())
    worse = sum(value > math.log(1.05) for value in mine.values())
    first = [task for task, by in table.items() if min(by, key=lambda other: by[other]) == name]
    cost = statistics.median(
        row["seconds"] / row["step_seconds"] for row in rows if row["recipe"] == name and "refused" not in row
    )
    middle = math.exp(statistics.median(mine.values()))
    return f"| {name} | {len(mine)} | {better} | {worse} | {middle:.2f} | {', '.join(first) or '-'} | {cost:.0f} |"


def _describe(row: Row) -> str:
    if "refused" in row:
        return f"{row['task']} {row['recipe']}: refused"
    return f"{row['task']} {row['recipe']}: training {row['train']:.4g}, validation {row['val']:.4g}"


def _pending(tasks: Sequence[BenchTask]) -> list[tuple[str, str, int]]:
    from autoinit.recipes.catalogue import NAMED

    rows = jobs.read_rows(PATH)
    done = {(row["task"], row["recipe"], row["seed"]) for row in rows}
    refused = {(row["task"], row["recipe"]) for row in rows if "refused" in row}
    return [
        (task.name, name, seed)
        for seed in SEEDS
        for task in tasks
        for name in NAMED
        if (task.name, name, seed) not in done and (task.name, name) not in refused
        if not (name in COSTLY and seed != SEEDS[0])
    ]


def main() -> None:
    """Runs what the result file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="", help="comma-separated names; all where left out")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the tables of the runs so far")
    arguments = parser.parse_args()
    tasks = [ALL[name] for name in (arguments.tasks.split(",") if arguments.tasks else ALL)]
    if not arguments.report:
        jobs.run_all(run_one, _pending(tasks), PATH, arguments.workers, _describe)
    print(report(jobs.read_rows(PATH)))


if __name__ == "__main__":
    main()
