"""Ensembles: members drawn from one choice beside members of the owner's constructor, and how far they part.

    python -m benchmarks.choice.ensembles --workers 2     # three tasks, three seeds, five members each
    python -m benchmarks.choice.ensembles --smoke         # does it run? A few steps, nothing is kept
    python -m benchmarks.choice.ensembles --report        # the table of the runs so far

Three ways to start five members: the owner's constructor under five seeds; what `select` chose once, on the first of
these models, as its members 0 to 4; and the members of one recipe by name, without a search. Every member is a model
made anew, so that what a plan keeps differs too, and member k has the same batch order in all three ways. Where
`select` keeps the owner's weights its ensemble is the owner's.

Held back are a fifth of the rows. The ensemble's prediction is the mean of its members' probabilities. Two members
disagree on the share of rows where their most likely classes differ; the divergence is the mean KL over all ordered
pairs. What an ensemble gains is the mean loss of its members less its own.

A finished (task, seed) is one line in `results/ensembles.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import combinations, permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoinit
from autoinit.errors import ArgumentError
from studies.real_data import digits_rows

from ..common import jobs
from ..common.jobs import Row
from ..common.statistics import paired_interval
from ..common.tasks import TASKS, BenchTask, sgd
from ..common.training import losses

RESULTS = jobs.RESULTS / "ensembles.jsonl"
MEMBERS = 5
BUDGET = 600
"""Training steps that `select` may take, once for all members."""
RECIPE = "he_normal"
"""By name, without a search."""
SMOKE_STEPS = 3
WAYS = ("as-is", "selected", RECIPE)


def digits_mlp() -> nn.Module:
    """Returns five layers on 64 pixels, no normalization, no skips."""
    hidden = [nn.Sequential(nn.Linear(width, 96), nn.ReLU()) for width in (64, 96, 96, 96)]
    return nn.Sequential(*hidden, nn.Linear(96, 10))


DIGITS = BenchTask("digits_mlp", "MLP, 5 layers, ReLU", False, digits_mlp, digits_rows, F.cross_entropy, sgd(0.01), 400)
ENSEMBLES: dict[str, BenchTask] = {task.name: task for task in (TASKS["mlp_tanh"], TASKS["cnn_residual"], DIGITS)}


def run(name: str, seed: int, smoke: bool = False) -> Row:
    """Returns the row of a task and a seed: what each way comes to."""
    begun, task = time.perf_counter(), ENSEMBLES[name]
    if smoke:
        task = dataclasses.replace(task, steps=SMOKE_STEPS)
    data = task.train_batches(seed)
    first = task.make_model(_seed(seed, 0))
    budget = autoinit.Budget(steps=150 if smoke else BUDGET)
    how: dict[str, Any] = {"loss": task.loss, "optimizer": task.optimizer, "budget": budget, "concurrency": 1}
    selection = autoinit.select(first, data, seed=seed, **how)
    searched = time.perf_counter() - begun
    ways = {"as-is": judged(task, seed, lambda model, member: None)}
    ways["selected"] = ways["as-is"]
    if not selection.kept:
        ways["selected"] = judged(task, seed, lambda model, member: draw(model, selection, data, task, member))
    ways[RECIPE] = judged(task, seed, lambda model, member: draw(model, RECIPE, data, task, member, seed=seed))
    return {
        "task": name,
        "seed": seed,
        "kept": selection.kept,
        "recipe": selection.recipe.key,
        "why": selection.why,
        "search_steps": selection.cost.steps,
        "steps": task.steps,
        "ways": ways,
        "searching": searched,
        "seconds": time.perf_counter() - begun,
        **jobs.provenance(),
    }


def _seed(seed: int, member: int) -> int:
    """Returns the seed of a member's constructor and of its batch order."""
    return 100 * seed + member


def draw(model: nn.Module, what: Any, data: Any, task: BenchTask, member: int, **options: Any) -> None:
    """Sets a fresh model as a member of a choice; where that draws nothing itself, as the choice on a fresh model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*kept as drawn by your own code")  # it is: each model is made anew
        try:
            autoinit.apply_(model, what, data, loss=task.loss, member=member, **options)
        except ArgumentError as problem:
            if "would be the same as every other" not in str(problem):
                raise
            autoinit.apply_(model, what, data, loss=task.loss, **options)


def judged(task: BenchTask, seed: int, start: Callable[[nn.Module, int], None]) -> Row:
    """Returns what an ensemble comes to, and its members.

    Args:
        task: what is trained.
        seed: of all.
        start: sets the fresh model of a member.
    """
    models = [task.make_model(_seed(seed, member)) for member in range(MEMBERS)]
    for member, model in enumerate(models):
        start(model, member)
        for _ in losses(model, task, _seed(seed, member), task.steps):
            pass
    split = task.load()
    return scores(torch.stack([probabilities(model, split.val_x) for model in models]), split.val_y)


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Returns the probabilities of classes, [rows, classes], in evaluation mode; all equal where a model diverged."""
    model.eval()
    found = torch.cat([model(part).double().softmax(-1) for part in x.split(512)])
    return found if bool(found.isfinite().all()) else torch.full_like(found, 1 / found.shape[1])


def scores(members: Tensor, labels: Tensor) -> Row:
    """Returns losses in nats, accuracies, and how far the members part.

    Args:
        members: probabilities, [members, rows, classes].
        labels: of the rows.
    """
    logs, classes = members.clamp_min(1e-12).log(), members.argmax(-1)
    alone = [_scored(one, labels) for one in members]
    loss, accuracy = _scored(members.mean(0), labels)
    apart = [float((classes[a] != classes[b]).double().mean()) for a, b in combinations(range(len(members)), 2)]
    diverging = [
        float((members[a] * (logs[a] - logs[b])).sum(-1).mean()) for a, b in permutations(range(len(members)), 2)
    ]
    member_loss = statistics.fmean(one for one, _ in alone)
    return {
        "member_losses": [one for one, _ in alone],
        "member_accuracies": [one for _, one in alone],
        "loss": loss,
        "accuracy": accuracy,
        "gain": member_loss - loss,
        "disagreement": statistics.fmean(apart),
        "divergence": statistics.fmean(diverging),
    }


def _scored(probability: Tensor, labels: Tensor) -> tuple[float, float]:
    logs = probability.clamp_min(1e-12).log()
    return float(F.nll_loss(logs, labels)), float((probability.argmax(-1) == labels).double().mean())


# The table


def report() -> str:
    """Returns the table of the runs so far."""
    rows = jobs.read_rows(RESULTS)
    if not rows:
        return "There is no result yet."
    lines = [
        "| task | members from | a member: loss, accuracy | the ensemble | it gains | disagreement | KL |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, task in ENSEMBLES.items():
        mine = [row for row in rows if row["task"] == name]
        if mine:
            lines += [_line(mine, task, way) for way in WAYS]
    seeds = len({row["seed"] for row in rows})
    minutes = sum(row["seconds"] for row in rows) / 60
    dates, commits = sorted({row["date"] for row in rows}), sorted({row["commit"] for row in rows})
    head = f"Means of {seeds} seeds, {MEMBERS} members each; {minutes:.0f} minutes of one thread; "
    head += f"{', '.join(dates)}, commit {', '.join(commits)}."
    parts = ["\n".join(lines), head]
    for name in ENSEMBLES:
        if mine := [row for row in rows if row["task"] == name]:
            parts.append(_compared(mine))
    return "\n\n".join(parts)


def _line(rows: Sequence[Row], task: BenchTask, way: str) -> str:
    found = [row["ways"][way] for row in rows]
    alone = [[statistics.fmean(one[f"member_{what}"]) for one in found] for what in ("losses", "accuracies")]
    together = [[one[what] for one in found] for what in ("loss", "accuracy")]
    rest = [statistics.fmean(one[what] for one in found) for what in ("gain", "disagreement", "divergence")]
    cells = [
        f"{statistics.fmean(loss):.3f}, {100 * statistics.fmean(right):.1f} %" for loss, right in (alone, together)
    ]
    kept = sum(row["kept"] for row in rows)
    what = f"selected (as-is kept in {kept} of {len(rows)})" if way == "selected" and kept else way
    return (
        f"| {task.family} ({task.name}) | {what} | {cells[0]} | {cells[1]} | {rest[0]:.3f} | {100 * rest[1]:.1f} % | "
        f"{rest[2]:.3f} |"
    )


def _compared(rows: Sequence[Row]) -> str:
    """Returns how the ensembles' losses differ, paired by seed, in words."""
    told = []
    for way in WAYS[1:]:
        found = paired_interval([row["ways"][way]["loss"] - row["ways"]["as-is"]["loss"] for row in rows])
        interval = f" ({found.low:+.3f} to {found.high:+.3f})" if math.isfinite(found.low) else ""
        told.append(f"{way} {found.estimate:+.3f}{interval}")
    recipes = ", ".join(sorted({"as-is kept" if row["kept"] else row["recipe"] for row in rows}))
    search = statistics.fmean(row["search_steps"] for row in rows)
    share = search / (MEMBERS * rows[0]["steps"])
    return (
        f"{rows[0]['task']}: the ensemble's loss against as-is, 90 % interval: {'; '.join(told)}. Selected: {recipes}. "
        f"The search took {search:.0f} steps, {100 * share:.0f} % of the members' trainings."
    )


def _describe(row: Row) -> str:
    found = ", ".join(f"{way} {one['loss']:.3f} (gains {one['gain']:.3f})" for way, one in row["ways"].items())
    chosen = "kept" if row["kept"] else row["recipe"]
    return f"{row['task']} seed {row['seed']}: {chosen}; {found}; {row['seconds']:.0f} s"


def main() -> None:
    """Runs what the result file lacks, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="one seed of each task, a few steps; nothing is kept")
    parser.add_argument("--report", action="store_true", help="only print the table of the runs so far")
    arguments = parser.parse_args()
    if arguments.smoke:
        jobs.one_thread()
        for name in ENSEMBLES:
            print(_describe(run(name, 0, smoke=True)), flush=True)
        return
    if not arguments.report:
        done = {(row["task"], row["seed"]) for row in jobs.read_rows(RESULTS)}
        pending = [(name, seed) for seed in range(arguments.seeds) for name in ENSEMBLES if (name, seed) not in done]
        jobs.run_all(run, pending, RESULTS, arguments.workers, _describe)
    print(report())


if __name__ == "__main__":
    main()
