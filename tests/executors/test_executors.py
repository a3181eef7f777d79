from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import evaluated
from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Job
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def test_sequential_runs_jobs_in_order_and_asks_at_each_rung() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    graph = trace_task(task)
    jobs = [
        Job(number, "search", Candidate(recipe), seed=0, steps=8, rungs=(2, 4))
        for number, recipe in enumerate([OWN, Recipe(base="he_normal")])
    ]
    asked: list[tuple[int, int]] = []

    def on_rung(job: Job, curve: Curve) -> bool:
        asked.append((job.number, curve.steps))
        return (job.number, curve.steps) != (0, 4)

    with task.preserved() as snapshot:
        executor = Sequential(Bench(task, graph, snapshot, seed=0))
        outcomes = list(executor.run(jobs, on_rung))
        executor.close()
    assert asked == [(0, 2), (0, 4), (1, 2), (1, 4), (1, 8)]
    assert [outcome.curve.steps for outcome in outcomes if outcome.curve] == [4, 8]
    looks = [task.forwards(evaluated(task.probe_eval, step)) for step in (2, 4)]
    assert outcomes[0].spent == pytest.approx(4 + sum(looks) / 3)
