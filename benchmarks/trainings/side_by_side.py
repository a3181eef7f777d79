"""Three starts of trainings that are no single loss: as it is, what the literature draws, and what `select` chooses.

    python -m benchmarks.trainings.side_by_side --workers 2           # runs what is missing, then writes the tables
    python -m benchmarks.trainings.side_by_side --only dcgan,wgan_gp --seeds 3
    python -m benchmarks.trainings.side_by_side --smoke               # everything small, one seed, nothing is kept
    python -m benchmarks.trainings.side_by_side --report

The model is as its owner builds it, drawn from the seed. `select` trains with seeds of its own; afterwards each start
is trained for as many steps, with one other seed that is the same for all three and that no selection has seen. It is
judged by the mean of what the last quarter of the steps yields, and by what is held back: a part that no selection has
seen either. A finished (training, seed, start) is one line in `results/trainings.jsonl`, and is not run again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import autoinit

from ..common import jobs
from ..common.jobs import Row
from ..common.training import EVALUATION_SEEDS
from .registry import chosen, load
from .tables import STARTS, report
from .training import Training

PATH = jobs.RESULTS / "trainings.jsonl"
POINTS = 40
"""Of a kept curve: means of as many equal stretches."""
SMOKE_STEPS, SMOKE_BUDGET = 12, 200
LAST_PART = 1
"""Of what is held back, the part that judges a finished training; part 0 is for the search."""


def run_one(name: str, seed: int, start: str, smoke: bool) -> Row:
    """Returns the row of one start of one training.

    Args:
        name: of the training.
        seed: of the owner's draw and of the recipe's or the search's; shifted, of the training that judges.
        start: "as-is", "literature" or "selected".
        smoke: whether a few steps will do.
    """
    training = load(name)
    if smoke:
        training = dataclasses.replace(training, steps=SMOKE_STEPS, budget=SMOKE_BUDGET)
    model = training.build(seed)
    began = time.perf_counter()
    told = prepare(model, training, start, seed)
    prepared = time.perf_counter()
    judged = judge(model, training, seed)
    row = {"training": name, "seed": seed, "start": start, "steps": training.steps, "budget": training.budget}
    seconds = {"start_seconds": prepared - began, "training_seconds": time.perf_counter() - prepared}
    return {**row, **told, **judged, **seconds, **jobs.provenance()}


def prepare(model: nn.Module, training: Training, start: str, seed: int) -> Row:
    """Sets the weights of one start, and returns what is to be told of it."""
    if start == "literature":
        return {"recipe": training.literature, "sets": drawn(model, training, training.literature, seed)}
    if start == "selected":
        return selected(model, training, seed)
    return {}


def drawn(model: nn.Module, training: Training, recipe: str, seed: int) -> int:
    """Draws a recipe, and returns how many parameters it has set."""
    example = training.example
    if callable(example):
        # The callable has its own input; the batch that is asked for besides is not looked at.
        unused = [torch.zeros(1, 1)]
        plan = autoinit.apply_(model, recipe, unused, step=lambda parts, _: example(parts), seed=seed)
    else:
        plan = autoinit.apply_(model, recipe, example, seed=seed)
    return sum(fill.distribution != "keep" for fill in plan.values())


def selected(model: nn.Module, training: Training, seed: int) -> Row:
    """Has the start chosen, and returns what the answer says."""
    answer = autoinit.select(
        model,
        train=training.train,
        example=training.example,
        validate=training.validate,
        budget=autoinit.Budget(steps=training.budget),
        seed=seed,
        executor="sequential",  # the cores are the workers' of this benchmark
        progress=False,
    )
    return {
        "recipe": str(answer.recipe),
        "kept": answer.kept,
        "answer": answer.answer,
        "why": answer.why,
        "select": {"seconds": answer.cost.seconds, "steps": answer.cost.steps, "trials": answer.cost.trials},
    }


def judge(model: nn.Module, training: Training, seed: int) -> Row:
    """Returns how a training from these weights goes; the model itself is left alone.

    Returns:
        `last`, the mean over the last quarter of the steps, and `held_back`, the mean of its values; inf for both where
        a step yields no finite number, which ends the training. `curve` is thinned, `steps_done` are those yielded.
    """
    model = copy.deepcopy(model)
    steps = training.train(model, EVALUATION_SEEDS + seed)
    curve: list[float] = []
    for value in itertools.islice(steps, training.steps):
        curve.append(float(value))
        if not math.isfinite(curve[-1]):
            break
    close: Any = steps
    close.close()
    told = {"curve": thinned(curve), "steps_done": len(curve)}
    if not math.isfinite(curve[-1]):
        return {"last": math.inf, "held_back": math.inf, **told}
    held_back = training.validate(model, LAST_PART)
    values = list(held_back) if isinstance(held_back, Sequence) else [held_back]
    last = statistics.fmean(curve[-math.ceil(training.steps / 4) :])
    mean = statistics.fmean(map(float, values))
    return {"last": last, "held_back": mean if math.isfinite(mean) else math.inf, **told}


def thinned(curve: Sequence[float]) -> list[float]:
    """Returns the means of 40 stretches of a curve, or the curve where it is no longer than that."""
    if len(curve) <= POINTS:
        return list(curve)
    edges = [len(curve) * place // POINTS for place in range(POINTS + 1)]
    return [statistics.fmean(curve[low:high]) for low, high in itertools.pairwise(edges)]


def pending(names: Sequence[str], seeds: int, rows: Sequence[Row], smoke: bool) -> list[tuple[str, int, str, bool]]:
    """Returns the jobs that have no row yet; all starts of a seed one after the other."""
    done = {(row["training"], row["seed"], row["start"]) for row in rows}
    wanted = itertools.product(range(seeds), names, STARTS)
    return [(name, seed, start, smoke) for seed, name, start in wanted if (name, seed, start) not in done]


def _describe(row: Row) -> str:
    of_search = f"; kept after {row['select']['steps']:.0f} steps" if row.get("kept") else ""
    if row.get("kept") is False:
        of_search = f"; {row['recipe']} after {row['select']['steps']:.0f} steps"
    seconds = f"{row['start_seconds']:.0f} + {row['training_seconds']:.0f} s"
    ends = f"{row['last']:.4g}, held back {row['held_back']:.4g}"
    return f"{row['training']} seed {row['seed']}, {row['start']}: {ends} ({seconds}{of_search})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated names; all where left out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything, and nothing is kept")
    parser.add_argument("--report", action="store_true", help="only write the tables of the runs so far")
    return parser.parse_args()


def main() -> None:
    """Runs what the result file lacks, and writes the tables."""
    arguments = _arguments()
    names = chosen(arguments.only)
    if arguments.smoke:
        smoke(names, arguments.workers)
        return
    if not arguments.report:
        wanted = pending(names, arguments.seeds, jobs.read_rows(PATH), smoke=False)
        jobs.run_all(run_one, wanted, PATH, arguments.workers, _describe)
    text = report(jobs.read_rows(PATH))
    PATH.with_suffix(".md").write_text(text + "\n")
    print(text)


def smoke(names: Sequence[str], workers: int) -> None:
    """Runs every start of every training for a few steps, and prints the tables of that.

    Raises:
        SystemExit: where one of them has failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PATH.name
        jobs.run_all(run_one, pending(names, 1, [], smoke=True), path, workers, _describe)
        rows = jobs.read_rows(path)
    print(report(rows))
    if failed := pending(names, 1, rows, smoke=True):
        raise SystemExit("failed: " + ", ".join(f"{name} {start}" for name, _, start, _ in failed))


if __name__ == "__main__":
    main()
