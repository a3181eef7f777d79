"""How well signals and short probes rank candidate recipes, measured against long trainings.

    python -m benchmarks.probes.rank_agreement --workers 2     # runs what is missing, then prints the tables
    python -m benchmarks.probes.rank_agreement --report        # only the tables
    python -m benchmarks.probes.rank_agreement --halves        # forms of the score, chosen on one half of the tasks

Every candidate is measured before training (signals of one forward and backward pass) and probed (one draw, one batch
order), and trained long from two other draws in two other batch orders, at the same learning rate. A row keeps the raw
curve, so that scores are computed when the tables are printed and a new one needs no new runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..common import jobs
from ..common.jobs import Row
from ..common.tasks import TASKS, chosen
from ..common.training import Run, train
from . import rank_report
from .candidates import FIXED, RANDOM, candidates

COUNT = len(FIXED) + RANDOM
LONGEST = 240
RUNGS = (2, 4, 8, 15, 30, 60, 120, 240)
"""Steps at which the held-back loss and the gradients are taken, besides an eighth and a quarter of the long run."""
PROBE_SEED, LONG_SEEDS = 0, (1, 2)
PATH = jobs.RESULTS / "rank_agreement.jsonl"


def run_one(name: str, place: int) -> Row:
    """Returns the signals, the probe's curve and the long-run losses of one candidate on one task."""
    with _drawn(name, place, PROBE_SEED) as (task, graph, recipe, _):
        row: Row = {"task": name, "candidate": place, "recipe": recipe.key, "reference": task.reference}
        row["signals"] = _signals(task, graph)
        row["probe"] = _probe(task, TASKS[name].steps)
    runs = [_long(name, place, seed) for seed in LONG_SEEDS]
    long = {"train": [run.final_train for run in runs], "val": [run.final_val for run in runs]}
    return {**row, "long": long, **jobs.provenance()}


def _signals(task: Any, graph: Any) -> Row:
    """Returns what one forward and backward pass tells of the weights as they are drawn."""
    from autoinit.probing.signals import measure

    found = measure(task, graph)
    layers = found.layers
    return {
        "loss": found.loss,
        "grad_norm": found.grad_norm,
        "agreement": found.agreement,
        "forward_std": [layer.forward_std for layer in layers],
        "forward_mean": [layer.forward_mean for layer in layers],
        "layer_grad_norm": [layer.grad_norm for layer in layers],
        "weight_norm": [layer.weight_norm for layer in layers],
        "dead": [layer.dead for layer in layers],
        "saturated": [layer.saturated for layer in layers],
        "separation": _separation(task),
    }


def _separation(task: Any) -> float | None:
    """Returns the share of the output's mean square that differs between the rows of a batch."""
    import torch

    from autoinit.task.task import explained

    batch = task.train[0]
    with task.preserved(), torch.no_grad(), explained(task, batch) as seen:
        task.model.train()
        task.loss(batch)
    if not seen or seen[0] is None:
        return None
    output = seen[0].double().flatten(1)
    return float(output.var(0, unbiased=False).mean() / output.square().mean().clamp_min(1e-300))


def _probe(task: Any, long_steps: int) -> Row:
    """Returns the probe's losses, and at each rung its held-back loss and its gradient norms."""
    from autoinit.judging.score import Curve
    from autoinit.probing.probe import probe

    rungs = sorted({*RUNGS, long_steps // 8, long_steps // 4})
    norms: dict[str, list[float]] = {}

    def note(curve: Curve) -> bool:
        grads = [p.grad for p in task.model.parameters() if p.ndim > 1 and p.grad is not None]
        norms[str(curve.steps)] = [float(grad.norm()) for grad in grads]
        return True

    curve = probe(task, steps=rungs[-1], seed=PROBE_SEED, held_back=task.probe_eval, rungs=rungs, on_rung=note)
    return {
        "losses": [round(loss, 6) for loss in curve.losses],
        "held_back": {str(step): loss for step, loss in curve.held_back},
        "grad_norms": norms,
        "gradient_range": curve.gradient_range,
        "diverged_at": curve.diverged_at,
        "seconds": curve.seconds,
    }


def _long(name: str, place: int, seed: int) -> Run:
    with _drawn(name, place, seed) as (_, _, _, model):
        return train(model, TASKS[name], seed)


@contextmanager
def _drawn(name: str, place: int, seed: int) -> Iterator[tuple[Any, Any, Any, nn.Module]]:
    """Yields the library's task, graph, the recipe, and the model with its weights, drawn under this seed."""
    from autoinit.apply import realize
    from autoinit.calibrations.subject import Subject
    from autoinit.plans.rules import resolve
    from autoinit.task.task import make_task
    from autoinit.tracing.tracing import trace_task

    bench_task = TASKS[name]
    model = bench_task.make_model(seed)
    batches = bench_task.train_batches(seed)
    task = make_task(model, batches, loss=bench_task.loss, optimizer=bench_task.optimizer, seed=seed)
    graph = trace_task(task)
    recipe = candidates(graph)[place]
    with task.preserved() as snapshot:
        realize(Subject(task, graph, seed=seed), resolve(recipe, graph, seed=seed), snapshot.rewind)
        yield task, graph, recipe, model


def _describe(row: Row) -> str:
    longs = ", ".join(f"{value:.4g}" for value in row["long"]["train"])
    return f"{row['task']} {row['recipe']}: {len(row['probe']['losses'])} steps, long runs {longs}"


def main() -> None:
    """Runs what the result file lacks, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="all", help="comma-separated names, all, or plain_deep")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the tables of the runs so far")
    parser.add_argument("--halves", action="store_true", help="only print the forms chosen on half of the tasks")
    arguments = parser.parse_args()
    if not (arguments.report or arguments.halves):
        done = {(row["task"], row["candidate"]) for row in jobs.read_rows(PATH)}
        pending = [
            (task.name, place)
            for place in range(COUNT)
            for task in chosen(arguments.tasks)
            if (task.name, place) not in done
        ]
        jobs.run_all(run_one, pending, PATH, arguments.workers, _describe)
    rows = jobs.read_rows(PATH)
    print(rank_report.halves(rows) if arguments.halves else rank_report.report(rows))


if __name__ == "__main__":
    main()
