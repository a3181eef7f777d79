"""Measures what a study costs: 20 real training steps of every task, on one thread.

    OMP_NUM_THREADS=1 python -m studies.cost studies/overnight.toml

Prints one line a task, then a table by family and the core-hours of all trials. Drawing a candidate's weights,
calibrations and storage are not in it.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autoinit.study.spec import Study, TaskSpec
from autoinit.study.toml_file import read_study
from autoinit.study.workbench import Workbench
from autoinit.task.task import Task

STEPS, WARM_UP = 20, 3


@dataclass(frozen=True)
class Cost:
    """What one task was measured to cost.

    Attributes:
        name: of the task.
        family: of its architecture.
        step: seconds of a training step.
        evaluation: seconds of the held-back loss.
        candidates: that fit it, as-is among them.
        trials: of the whole study on it.
        hours: of one core, for those trials.
    """

    name: str
    family: str
    step: float
    evaluation: float
    candidates: int
    trials: int
    hours: float


def costs(study: Study, folder: Path) -> Iterator[Cost]:
    """Yields what each task costs.

    Args:
        study: whose tasks are measured.
        folder: where its networks and data are imported from.
    """
    for spec in study.tasks:
        yield cost(study, spec, folder)


def cost(study: Study, spec: TaskSpec, folder: Path) -> Cost:
    """Returns what one task of a study costs.

    Args:
        study: says how many trials, and how long.
        spec: of the task.
        folder: where its networks and data are imported from.
    """
    at = Workbench(spec, study.seeds[0], [folder])
    try:
        candidates = len(at.described(study).candidates)
        step, evaluation = _timed(at.bench.task)
    finally:
        at.close()
    trials = candidates * (len(study.seeds) + len(study.lr_steps))
    evaluations = len({*study.probe.rungs, study.probe.steps})
    hours = trials * (study.probe.steps * step + evaluations * evaluation) / 3600
    return Cost(spec.name, spec.family, step, evaluation, candidates, trials, hours)


def _timed(task: Task) -> tuple[float, float]:
    """Returns the seconds of this process for one step, and for one evaluation of the held-back batches."""
    optimizer, _ = task.build_optimizer()
    batches = list(task.order(0, WARM_UP + STEPS))
    task.model.train()
    started = 0.0
    for place, batch in enumerate(batches):
        if place == WARM_UP:
            started = time.process_time()
        optimizer.zero_grad()
        task.backward(batch)
        optimizer.step()
    step = (time.process_time() - started) / STEPS
    task.model.eval()
    started = time.process_time()
    task.evaluate(task.probe_eval)
    return step, time.process_time() - started


def table(found: Sequence[Cost]) -> str:
    """Returns the table by family, in Markdown.

    Args:
        found: the costs of all tasks.
    """
    families: dict[str, list[Cost]] = defaultdict(list)
    for one in found:
        families[one.family].append(one)
    rows = [
        f"| {family} | {len(many)} | {1000 * sum(one.step for one in many) / len(many):.1f} | "
        f"{sum(one.trials for one in many):,} | {sum(one.hours for one in many):.2f} |"
        for family, many in families.items()
    ]
    total = f"| all | {len(found)} | {1000 * sum(one.step for one in found) / len(found):.1f} | "
    total += f"{sum(one.trials for one in found):,} | {sum(one.hours for one in found):.2f} |"
    head = ["| family | tasks | ms a step | trials | core-hours |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows, total])


def main() -> None:
    """Measures the study file that the command line names."""
    if len(sys.argv) != 2:
        raise SystemExit("Name one study file: python -m studies.cost studies/overnight.toml")
    path = Path(sys.argv[1])
    torch.set_num_threads(1)
    found = []
    for one in costs(read_study(path), path.resolve().parent):
        found.append(one)
        step = f"{1000 * one.step:7.2f} ms a step"
        print(f"{one.name:44} {step}, {one.candidates} candidates, {one.hours:.3f} h", flush=True)
    print(table(found))


if __name__ == "__main__":
    main()
