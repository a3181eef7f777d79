"""How well a short probe ranks candidate recipes, measured against long trainings.

    python -m benchmarks.rank_agreement --workers 2     # runs what is missing, then prints the table
    python -m benchmarks.rank_agreement --report

Every candidate of a fixed list is probed on every task (one draw, one batch order), and trained long from two
other draws in two other batch orders, at the same learning rate. Kendall's tau of probe score and long-run loss is
set against its ceiling, the tau of one seed's long run and the other's; for all candidates and for the best half.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from . import jobs
from .jobs import Row
from .statistics_ import kendall
from .tasks import TASKS, chosen, log_ratio
from .training import Run, train

CANDIDATES: tuple[dict[str, object], ...] = (
    {},
    {"log2_gain": 1.0},
    {"log2_gain": -1.0},
    {"head": "zero"},
    {"base": "he_normal"},
    {"base": "he_normal", "log2_gain": 1.0},
    {"base": "he_normal", "log2_gain": -1.0},
    {"base": "xavier_normal"},
    {"base": "xavier_normal", "log2_gain": 2.0},
    {"base": "lecun_normal"},
    {"base": "lecun_normal", "depth_slope": -1.0},
    {"base": "lecun_normal", "depth_slope": 1.0},
    {"base": "truncated_normal_002"},
    {"base": "orthogonal"},
    {"base": "orthogonal", "log2_gain": 0.5},
    {"base": "orthogonal", "calibration": "lsuv"},
)
"""Recipe fields; all of them do something on every task."""

PROBES = (60, 120)
PROBE_SEED, LONG_SEEDS = 0, (1, 2)
NOISY = 0.2
"""A task whose own two long runs agree less than this has no ranking to find; it gets no share."""
LOSSES = {"train": "training loss", "val": "validation loss", "both": "training and validation loss"}
PATH = jobs.RESULTS / "rank_agreement.jsonl"


def run_one(name: str, place: int) -> Row:
    """Returns the probe scores and long-run losses of one candidate on one task."""
    import autoinit

    recipe = autoinit.Recipe(**CANDIDATES[place])  # type: ignore[arg-type]
    scores = _probe(name, recipe, PROBE_SEED)
    runs = [_long(name, recipe, seed) for seed in LONG_SEEDS]
    long = {"train": [run.final_train for run in runs], "val": [run.final_val for run in runs]}
    row = {"task": name, "candidate": place, "recipe": recipe.key, "scores": scores, "long": long}
    return {**row, **jobs.provenance()}


def _probe(name: str, recipe: object, seed: int) -> dict[str, float]:
    """Returns the library's own score after each of `PROBES` steps, as the search would see it."""
    from autoinit.probe import probe
    from autoinit.score import Curve, Reference, score

    scores: dict[str, float] = {}
    with _drawn(name, recipe, seed) as (task, _):
        own = Reference.of(task.reference, ())

        def note(curve: Curve) -> bool:
            scores[str(curve.steps)] = score(curve, own, curve.steps).total
            return True

        curve = probe(task, steps=PROBES[-1], seed=seed, held_back=task.probe_eval, rungs=PROBES[:-1], on_rung=note)
        for steps in PROBES:  # a divergence ends the probe before its next rung
            scores.setdefault(str(steps), score(curve, own, steps).total)
    return scores


def _long(name: str, recipe: Any, seed: int) -> Run:
    with _drawn(name, recipe, seed) as (_, model):
        return train(model, TASKS[name], seed)


@contextmanager
def _drawn(name: str, recipe: Any, seed: int) -> Iterator[tuple[Any, nn.Module]]:
    """Yields the library's task and the model with the candidate's weights, drawn under this seed."""
    from autoinit.apply import realize
    from autoinit.calibrations import Subject
    from autoinit.rules import resolve
    from autoinit.task import make_task
    from autoinit.tracing import trace_task

    bench_task = TASKS[name]
    model = bench_task.make_model(seed)
    batches = bench_task.train_batches(seed)
    task = make_task(model, batches, loss=bench_task.loss, optimizer=bench_task.optimizer, seed=seed)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        realize(Subject(task, graph, seed=seed), resolve(recipe, graph, seed), snapshot.rewind)
        yield task, model


def long_losses(row: Row, against: str) -> list[float]:
    """Returns a candidate's losses of the long runs, one per seed.

    Args:
        row: of one candidate.
        against: "train", "val", or "both": their geometric mean, since the score looks at both.
    """
    if against != "both":
        return [float(value) for value in row["long"][against]]
    pairs = zip(row["long"]["train"], row["long"]["val"], strict=True)
    return [math.sqrt(training * validation) for training, validation in pairs]


def agreement(rows: Sequence[Row], steps: int, against: str = "train") -> tuple[float, float]:
    """Returns Kendall's tau of the probe at `steps` with the long runs (mean of the two), and its ceiling."""
    scores = [row["scores"][str(steps)] for row in rows]
    longs = list(zip(*(long_losses(row, against) for row in rows), strict=True))
    return statistics.fmean(kendall(scores, long) for long in longs), kendall(*longs)


def regret(rows: Sequence[Row], steps: int, against: str = "train") -> float:
    """Returns log(long-run loss of the probe's favourite / of the best candidate), mean of the long runs."""
    favourite = min(rows, key=lambda row: row["scores"][str(steps)])
    best = map(min, zip(*(long_losses(row, against) for row in rows), strict=True))
    return statistics.fmean(
        log_ratio(mine, top) for mine, top in zip(long_losses(favourite, against), best, strict=True)
    )


def best_half(rows: Sequence[Row], against: str = "train") -> list[Row]:
    """Returns the candidates whose long runs are the better half, by the sum of their ranks."""
    ranks = [0] * len(rows)
    for long in zip(*(long_losses(row, against) for row in rows), strict=True):
        for rank, index in enumerate(sorted(range(len(rows)), key=lambda i: long[i])):
            ranks[index] += rank
    order = sorted(range(len(rows)), key=lambda i: ranks[i])
    return [rows[index] for index in order[: len(rows) // 2]]


def share(tau: float, ceiling: float) -> float:
    """Returns tau as a share of the ceiling; nan where the long runs themselves do not agree."""
    return tau / ceiling if math.isfinite(tau) and ceiling >= NOISY else math.nan


def report(against: str) -> str:
    """Returns the table per task and the medians, against one of the long runs' losses."""
    rows = {(row["task"], row["candidate"]): row for row in jobs.read_rows(PATH)}
    lines: list[str] = []
    shares: dict[tuple[str, int], list[float]] = {}
    header = ["task", "candidates"]
    for steps in PROBES:
        header += [f"T={steps}: tau", "ceiling", "share", "best half: tau", "ceiling", "regret"]
    for name in TASKS:
        mine = [rows[key] for key in sorted(rows) if key[0] == name]
        if len(mine) < 4:
            continue
        cells = [name, str(len(mine))]
        for steps in PROBES:
            tau, ceiling = agreement(mine, steps, against)
            half_tau, half_ceiling = agreement(best_half(mine, against), steps, against)
            shares.setdefault(("all", steps), []).append(share(tau, ceiling))
            shares.setdefault(("half", steps), []).append(share(half_tau, half_ceiling))
            lost = regret(mine, steps, against)
            numbers = [tau, ceiling, share(tau, ceiling), half_tau, half_ceiling, lost]
            cells += [f"{number:.2f}" for number in numbers]
        lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return f"{PATH} holds no task with four candidates yet."
    head = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    title = f"Probe score against the long runs' {LOSSES[against]}:"
    return "\n".join([title, "", *head, *lines, "", *_medians(shares)])


def _medians(shares: dict[tuple[str, int], list[float]]) -> list[str]:
    lines = []
    for (which, steps), values in shares.items():
        known = [value for value in values if math.isfinite(value)]
        middle = f"{statistics.median(known):.2f}" if known else "unknown"
        lines.append(
            f"T={steps}, {'all candidates' if which == 'all' else 'best half'}: median share of the ceiling "
            f"{middle} over {len(known)} tasks ({len(values) - len(known)} with a ceiling below {NOISY} left out)"
        )
    return lines


def _describe(row: Row) -> str:
    longs = ", ".join(f"{value:.4g}" for value in row["long"]["train"])
    return f"{row['task']} {row['recipe']}: scores {row['scores']}, long runs {longs}"


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, all, or plain_deep")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if not arguments.report:
        done = {(row["task"], row["candidate"]) for row in jobs.read_rows(PATH)}
        pending = [
            (task.name, place)
            for task in chosen(arguments.tasks)
            for place in range(len(CANDIDATES))
            if (task.name, place) not in done
        ]
        jobs.run_all(run_one, pending, PATH, arguments.workers, _describe)
    print("\n\n".join(report(against) for against in LOSSES))


if __name__ == "__main__":
    main()
