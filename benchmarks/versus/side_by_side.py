"""Our `select` and single recipes beside what people use instead, at equal total cost, in one run.

    python -m benchmarks.versus.side_by_side --workers 2                  # runs what is missing, then prints the report
    python -m benchmarks.versus.side_by_side --tasks tabular_class,autoencoder_sigmoid --seeds 1 --lrs centre
    python -m benchmarks.versus.side_by_side --seeds 3 --grid-to large --workers 2
    python -m benchmarks.versus.side_by_side --report

One row is one method on one task, seed and learning rate: the model is drawn as its owner draws it, the method sets
its weights, and they are trained at that constant rate. Since the rate is constant, one training serves all
allowances: the losses are taken where each of them is spent, and the weights' own cost is taken off beforehand. A row
that was trained less far than is asked for now is run again.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import BenchTask
from ..common.training import EVALUATION_SEEDS, SMOOTH_SHARE, batch_order, final_loss, validate
from . import tasks as versus_tasks
from .equal_cost import SHARES, horizon, long_steps, places_up_to
from .peers import METHODS, Start
from .peers import chosen as chosen_methods
from .peers.cost import Identity, changes
from .tables import report
from .tasks import VERSUS

RATES: dict[str, float] = {"centre": 1.0, "low": 10**-0.5, "high": 10**0.5}
"""The grid of learning rates, as factors on the task's own."""
PREPARE_SEEDS = 2_000_000
"""Added to a seed for what a method draws from torch's global random state."""
POINTS = 100
"""Of a kept curve within the long training, and as many beyond it."""
WORDS = 200
"""Characters that are kept of a message."""


def run_one(name: str, method: str, seed: int, rate: str, reach: str, stretch: float) -> Row:
    """Returns the row of one training; what goes wrong is in it and is not raised.

    Args:
        name: of the task.
        method: key of `METHODS`.
        seed: of the owner's draw, of the method and, shifted, of the training's batch order.
        rate: key of `RATES`.
        reach: the largest allowance that is trained to.
        stretch: length of the long training, as a multiple of the task's own.
    """
    task = at_rate(VERSUS[name], RATES[rate])
    model = task.make_model(seed)
    row: Row = {"task": name, "method": method, "seed": seed, "rate": rate, "reach": reach, "stretch": stretch}
    row |= {"steps": long_steps(task, stretch), "reference": task.reference(), "failure": None, **jobs.provenance()}
    before = Identity.of(model)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = _prepared(model, task, method, seed)
    except Exception as error:  # whatever a method raises is its result
        return {**row, "failure": _failure(error), "seconds": time.perf_counter() - began}
    said = dict.fromkeys(f"warns: {str(one.message)[:WORDS]}" for one in caught)
    notes = [*start.notes, *changes(before, Identity.of(model)), *list(said)[:3]]
    row["cost"] = {"steps": start.steps, "how": start.how, "seconds": time.perf_counter() - began}
    row |= {"recipe": start.recipe, "kept": start.kept, "notes": notes}
    places = [place for place in places_up_to(reach) if place in ("apart", *METHODS[method].places)]
    horizons = {place: horizon(task, place, start.steps, stretch) for place in places}
    try:
        trained = train_through(model, task, seed, {place: end for place, end in horizons.items() if end is not None})
    except Exception as error:  # a method may leave a model that cannot be trained
        return {**row, "failure": _failure(error), "seconds": time.perf_counter() - began}
    row["ends"] = {place: trained.ends.get(place) for place in horizons}
    row |= {"curve": thinned(trained.curve, row["steps"]), "diverged_at": trained.diverged_at}
    return {**row, "training_seconds": trained.seconds, "seconds": time.perf_counter() - began}


def at_rate(task: BenchTask, factor: float) -> BenchTask:
    """Returns the task with its optimizer's learning rate times a factor."""
    rate = task.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"]
    # Calls at least one level deep, so the keyword given here is the one that counts.
    return dataclasses.replace(task, optimizer=functools.partial(task.optimizer, lr=rate * factor))


def _prepared(model: nn.Module, task: BenchTask, method: str, seed: int) -> Start:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(PREPARE_SEEDS + seed)
        return METHODS[method].prepare(model, task, seed)


def _failure(error: Exception) -> Row:
    from autoinit import AutoInitError

    kind = "refused" if isinstance(error, AutoInitError) else "raised"
    words = (str(error).strip().splitlines() or [""])[0][:WORDS]
    return {"kind": kind, "words": f"{type(error).__name__}: {words}"}


@dataclass
class Trained:
    """A training that was looked at on its way.

    Attributes:
        curve: training loss of every step.
        ends: by place, its steps, its final training loss and its validation loss; inf after a divergence.
        diverged_at: the step whose loss was not finite; None where none was.
        seconds: of the steps and the looks.
    """

    curve: list[float]
    ends: dict[str, Row] = field(default_factory=dict)
    diverged_at: int | None = None
    seconds: float = 0.0


def train_through(model: nn.Module, task: BenchTask, seed: int, horizons: Mapping[str, int]) -> Trained:
    """Returns one long training of a copy of the model; it is the same as `training.train` up to each horizon.

    Args:
        model: carries the initial weights.
        task: its data, loss and optimizer.
        seed: of the batch order and of dropout; `EVALUATION_SEEDS` is added.
        horizons: steps at which the losses are taken, by place; the furthest one ends it.
    """
    model = copy.deepcopy(model).train()
    optimizer = task.optimizer(model.parameters())
    trained, started = Trained([]), time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(EVALUATION_SEEDS + seed)
        for step, batch in enumerate(batch_order(task, max(horizons.values()), EVALUATION_SEEDS + seed), start=1):
            optimizer.zero_grad()
            loss = task.loss_of(model, batch)
            loss.backward()
            optimizer.step()
            trained.curve.append(loss.item())
            if not math.isfinite(trained.curve[-1]):
                trained.diverged_at = step
                break
            if step in horizons.values():
                value = validate(model, task)
                model.train()
                end = {"steps": step, "train": final_loss(trained.curve, step), "val": value}
                trained.ends |= {place: end for place, steps in horizons.items() if steps == step}
    for place, steps in horizons.items():
        trained.ends.setdefault(place, {"steps": steps, "train": math.inf, "val": math.inf})
    trained.seconds = time.perf_counter() - started
    return trained


def thinned(curve: list[float], steps: int) -> list[list[float]]:
    """Returns (step, trailing mean over a twentieth of the long training) at up to 200 steps.

    Args:
        curve: training loss of every step.
        steps: of the long training: half of the points lie within it.
    """
    window = max(1, steps // SMOOTH_SHARE)
    beyond = max(0, len(curve) - steps)
    places = {math.ceil(steps * point / POINTS) for point in range(1, POINTS + 1)}
    places |= {steps + math.ceil(beyond * point / POINTS) for point in range(1, POINTS + 1)}
    kept = [place for place in sorted(places) if window <= place <= len(curve)]
    return [[place, float(f"{sum(curve[place - window : place]) / window:.5g}")] for place in kept]


def pending(arguments: argparse.Namespace, rows: list[Row]) -> list[tuple[object, ...]]:
    """Returns the jobs that the rows lack: all tasks of one seed at the centre rate first, task by task."""
    order = list(SHARES)
    done = {(row["task"], row["method"], row["seed"], row["rate"], reach)
            for row in rows for reach in order[: order.index(row["reach"]) + 1]}  # fmt: skip
    found: list[tuple[object, ...]] = []
    for seed in range(arguments.seeds):
        for rate in arguments.lrs.split(","):
            reach = arguments.reach if rate == "centre" else min(arguments.grid_to, arguments.reach, key=order.index)
            for task in versus_tasks.chosen(arguments.tasks):
                for method in chosen_methods(arguments.methods):
                    stands = set(METHODS[method].places) & set(places_up_to(reach))
                    if stands and (task.name, method, seed, rate, reach) not in done:
                        found.append((task.name, method, seed, rate, reach, arguments.stretch))
    return found


def _describe(row: Row) -> str:
    head = f"{row['task']} {row['method']} seed {row['seed']} {row['rate']}: "
    if row["failure"]:
        return f"{head}{row['failure']['kind']}, {row['failure']['words']}"
    ends = [f"{end['train']:.4g}" if end else "-" for end in row["ends"].values()]
    return f"{head}{', '.join(ends)} ({row['cost']['steps']:.0f} steps before, {row['seconds']:.0f} s)"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, or all")
    parser.add_argument("--methods", default="all", help=f"comma-separated, or all: {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lrs", default=",".join(RATES), help="of centre, low, high")
    parser.add_argument("--reach", choices=list(SHARES), default="large", help="the largest allowance")
    parser.add_argument("--grid-to", choices=list(SHARES), default="small", help="allowance that low and high go to")
    parser.add_argument("--stretch", type=float, default=1.0, help="long training, as a multiple of the task's own")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="result file; by default one per stretch in benchmarks/results")
    parser.add_argument("--report", action="store_true", help="only print the report of the runs so far")
    arguments = parser.parse_args()
    if unknown := set(arguments.lrs.split(",")) - set(RATES):
        raise SystemExit(f"unknown rates {', '.join(sorted(unknown))}; known: {', '.join(RATES)}")
    return arguments


def main() -> None:
    """Runs what the result file lacks, and prints the report."""
    arguments = _arguments()
    suffix = "" if arguments.stretch == 1 else f"_stretch_{arguments.stretch:g}"
    path = arguments.out or jobs.RESULTS / f"versus{suffix}.jsonl"
    if not arguments.report:
        jobs.run_all(run_one, pending(arguments, _rows(path, arguments)), path, arguments.workers, _describe)
    print(report(_rows(path, arguments)))


def _rows(path: Path, arguments: argparse.Namespace) -> list[Row]:
    return [row for row in jobs.read_rows(path) if row["stretch"] == arguments.stretch]


if __name__ == "__main__":
    main()
