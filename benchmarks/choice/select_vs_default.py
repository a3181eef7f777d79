"""Long trainings from the weights that `autoinit.select` leaves, against the owner's own draws.

    python -m benchmarks.choice.select_vs_default --workers 2              # select with 60 s, then prints the table
    python -m benchmarks.choice.select_vs_default --steps-budget 600 --tasks plain_deep --workers 2
    python -m benchmarks.choice.select_vs_default --report                 # the table of the runs so far

For every task and seed: the model is drawn as its owner draws it and trained long; `select` is called on the
training rows with the same optimizer; the selected weights are trained long on the same batches in the same
order, which `select` never saw. Where `select` keeps the owner's weights, the two trainings are the same one and all
ratios are exactly 1.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common import jobs
from ..common.jobs import Row
from ..common.statistics import MARGIN, Interval, geometric_mean, harm_test, holm, paired_interval
from ..common.tasks import TASKS, BenchTask, chosen, log_ratio
from ..common.training import Run, steps_ratio, train

TRAINS_BY_ITSELF = 0.5
"""A task trains by itself where as-is goes this share of the way from the best constant predictor's loss to the
lowest final loss of any of its runs. That is so for every task that ends below half of the constant's loss, and
for a language model too, whose loss cannot come near 0."""
LEARNABLE = 0.9
"""Where no run ends below this share of the constant predictor's loss, nothing trains by itself."""


def run_one(name: str, seed: int, seconds: float | None, steps: int | None) -> Row:
    """Returns the row of one task and seed: as-is and selected, trained long.

    Args:
        name: of the task.
        seed: of the owner's draw, of the search and, shifted, of the long training's batch order.
        seconds: budget of `select`; None where it is counted in steps.
        steps: budget of `select` in training steps; None where it is in seconds.
    """
    import autoinit

    task = TASKS[name]
    model = task.make_model(seed)
    as_is = train(model, task, seed)
    candidate = copy.deepcopy(model)
    start = time.perf_counter()
    selection = autoinit.select(
        candidate,
        task.train_batches(seed),
        loss=task.loss,
        optimizer=task.optimizer,
        budget=autoinit.Budget(seconds=seconds, steps=steps),
        seed=seed,
        concurrency=1,  # other jobs have the other cores
    )
    wall = time.perf_counter() - start
    # Weights that were kept are the same weights: training them again would only repeat the run.
    selected = as_is if selection.kept else train(candidate, task, seed)
    return {
        "task": name,
        "seed": seed,
        "steps": task.steps,
        "reference": task.reference(),
        "as_is": _ends(as_is),
        "selected": _ends(selected),
        "steps_ratio": 1.0 if selection.kept else steps_ratio(selected.curve, as_is.final_train, task.steps),
        "kept": selection.kept,
        "recipe": selection.recipe.key,
        "gain": [selection.gain.estimate, selection.gain.low, selection.gain.high] if selection.gain else None,
        "search": {
            "seconds": wall,
            "steps": selection.cost.steps,
            "in_long_steps": wall / (as_is.seconds / len(as_is.curve)),
        },
        "step_seconds": as_is.seconds / len(as_is.curve),
        **jobs.provenance(),
    }


def _ends(run: Run) -> Row:
    """Returns the final losses, and twenty points of the curve for plots."""
    points = [run.curve[len(run.curve) * place // 20] for place in range(20)]
    return {"train": run.final_train, "val": run.final_val, "curve": [round(value, 5) for value in points]}


@dataclass(frozen=True)
class TaskResult:
    """All seeds of one task.

    Attributes:
        task: of the table.
        rows: one per seed.
        train: log(selected/as-is) of the final training losses.
        val: the same of the validation losses.
        steps_ratio: geometric mean over the seeds.
    """

    task: BenchTask
    rows: tuple[Row, ...]

    @property
    def train(self) -> list[float]:
        return [log_ratio(row["selected"]["train"], row["as_is"]["train"]) for row in self.rows]

    @property
    def val(self) -> list[float]:
        return [log_ratio(row["selected"]["val"], row["as_is"]["val"]) for row in self.rows]

    @property
    def steps_ratio(self) -> float:
        return math.exp(statistics.fmean(math.log(row["steps_ratio"]) for row in self.rows))

    @property
    def trains_by_itself(self) -> bool:
        """Whether as-is's median final training loss is low enough (see `TRAINS_BY_ITSELF`)."""
        reference = self.rows[0]["reference"]
        best = min(row[side]["train"] for row in self.rows for side in ("as_is", "selected"))
        way = reference - self.median("as_is", "train")
        return best < LEARNABLE * reference and way >= TRAINS_BY_ITSELF * (reference - best)

    def median(self, *path: str) -> float:
        return statistics.median(_at(row, path) for row in self.rows)


def _at(row: Row, path: Sequence[str]) -> float:
    value: object = row
    for key in path:
        value = value[key]  # type: ignore[index]
    return float(value)  # type: ignore[arg-type]


def grouped(rows: Sequence[Row]) -> list[TaskResult]:
    """Returns the results by task, in the order of the table; the last row of a task and seed counts."""
    latest = {(row["task"], row["seed"]): row for row in rows}
    by_task = {name: tuple(latest[key] for key in sorted(latest) if key[0] == name) for name in TASKS}
    return [TaskResult(TASKS[name], found) for name, found in by_task.items() if found]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(interval: Interval, show: Callable[[float], float] = math.exp) -> str:
    if not math.isfinite(interval.low):
        return f"{show(interval.estimate):.2f}"
    return f"{show(interval.estimate):.2f} [{show(interval.low):.2f}, {show(interval.high):.2f}]"


def table(results: Sequence[TaskResult]) -> str:
    """Returns one line per task."""
    header = [
        "task",
        "seeds",
        "training as-is",
        "selected",
        "validation as-is",
        "selected",
        "training ratio [90 %]",
        "validation ratio [90 %]",
        "steps ratio",
        "kept",
        "search in steps",
    ]
    lines = []
    for result in results:
        name = result.task.name + (" †" if result.task.plain_deep else "")
        name += " *" if result.trains_by_itself else ""
        lines.append(
            [
                name,
                str(len(result.rows)),
                *(f"{result.median(side, 'train'):.4g}" for side in ("as_is", "selected")),
                *(f"{result.median(side, 'val'):.4g}" for side in ("as_is", "selected")),
                _interval(paired_interval(result.train)),
                _interval(paired_interval(result.val)),
                f"{result.steps_ratio:.2f}",
                f"{sum(row['kept'] for row in result.rows)}/{len(result.rows)}",
                f"{result.median('search', 'in_long_steps'):.0f}",
            ]
        )
    notes = "† plain deep net (point 1), * trains by itself (as-is goes half the way or more)."
    return f"{_markdown(header, lines)}\n\n{notes}"


def harm_table(results: Sequence[TaskResult]) -> str:
    """Returns the non-inferiority test per task: upper 90 % bound of the log ratio ≤ log 1.05, Holm over tasks."""
    sides = {"training": [r.train for r in results], "validation": [r.val for r in results]}
    columns: list[list[str]] = []
    summary = []
    for side, ratios in sides.items():
        tests = [harm_test(values) for values in ratios]
        passed = holm([test.p for test in tests])
        low = [paired_interval(values).low for values in ratios]
        verdicts = [
            "no harm" if ok else ("HARM" if bound > MARGIN else "not shown")
            for ok, bound in zip(passed, low, strict=True)
        ]
        columns.append([f"{math.exp(test.upper):.3f}" for test in tests])
        columns.append(verdicts)
        summary.append(
            f"{side}: no harm shown for {verdicts.count('no harm')} of {len(results)} tasks, "
            f"harm for {verdicts.count('HARM')}, undecided for {verdicts.count('not shown')}; "
            f"largest single ratio {math.exp(max(max(values) for values in ratios)):.3f}"
        )
    lines = [[result.task.name, *cells] for result, cells in zip(results, zip(*columns, strict=True), strict=True)]
    header = ["task", "training: upper bound of the ratio", "verdict", "validation: upper bound", "verdict"]
    return _markdown(header, lines) + "\n\n" + "\n".join(summary)


def summary(results: Sequence[TaskResult]) -> str:
    """Returns the geometric means over tasks with bootstrap intervals, beside what they must reach."""
    groups = {
        "all tasks": list(results),
        "those that train by themselves": [r for r in results if r.trains_by_itself],
        "those that do not": [r for r in results if not r.trains_by_itself],
        "plain deep nets": [r for r in results if r.task.plain_deep],
    }
    lines = []
    for name, group in groups.items():
        if not group:
            continue
        ratios = {
            "steps": [r.steps_ratio for r in group],
            "train": [math.exp(statistics.fmean(r.train)) for r in group],
            "val": [math.exp(statistics.fmean(r.val)) for r in group],
        }
        cells = [_interval(geometric_mean(values), float) for values in ratios.values()]
        lines.append([f"{name} ({len(group)})", *cells, f"{max(ratios['train']):.3f}"])
    header = [
        "geometric mean over",
        "steps ratio [95 %]",
        "training ratio",
        "validation ratio",
        "worst training",
    ]
    return _markdown(header, lines)


def report(path: Path) -> str:
    """Returns the whole report of a result file."""
    results = grouped(jobs.read_rows(path))
    if not results:
        return f"{path} holds no result yet."
    rows = [row for result in results for row in result.rows]
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    seconds = statistics.median(row["search"]["seconds"] for row in rows)
    steps = statistics.median(row["search"]["steps"] for row in rows)
    head = (
        f"{path.name}: {len(rows)} runs, {len(results)} tasks; {', '.join(dates)}; "
        f"commit {', '.join(commits)}; "
        f"torch {rows[0]['torch']}; a search took {seconds:.0f} s and {steps:.0f} steps (medians); "
        f"kept in {sum(row['kept'] for row in rows)} of {len(rows)}."
    )
    return "\n\n".join([head, table(results), harm_table(results), summary(results)])


def _describe(row: Row) -> str:
    ends = f"{row['as_is']['train']:.4g} -> {row['selected']['train']:.4g}"
    ends += f", val {row['as_is']['val']:.4g} -> {row['selected']['val']:.4g}"
    verdict = "kept" if row["kept"] else row["recipe"]
    return f"{row['task']} seed {row['seed']}: {ends} ({verdict}; {row['search']['seconds']:.0f} s)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, all, or plain_deep")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of each select")
    parser.add_argument("--steps-budget", type=int, help="training steps of each select, instead of seconds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="result file; by default one per budget in benchmarks/results")
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    return parser.parse_args()


def _default_path(arguments: argparse.Namespace) -> Path:
    if arguments.steps_budget:
        return jobs.RESULTS / f"select_vs_default_{arguments.steps_budget}_steps.jsonl"
    suffix = "" if arguments.budget == 60 else f"_{arguments.budget:g}s"
    return jobs.RESULTS / f"select_vs_default{suffix}.jsonl"


def main() -> None:
    """Runs what the result file lacks, and prints the report."""
    arguments = _arguments()
    path = arguments.out or _default_path(arguments)
    if not arguments.report:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(path)}
        seconds = None if arguments.steps_budget else arguments.budget
        # Seeds outermost: an interrupted run has whole seeds of all tasks.
        pending = [
            (task.name, seed, seconds, arguments.steps_budget)
            for seed in range(arguments.seeds)
            for task in chosen(arguments.tasks)
            if (task.name, seed) not in done
        ]
        jobs.run_all(run_one, pending, path, arguments.workers, _describe)
    print(report(path))


if __name__ == "__main__":
    main()
