"""Trainings that stop, wait while others train in the same model, and go on."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoinit.executors.executor import Executor
from autoinit.executors.processes import Processes
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Tally
from autoinit.judging.score import Curve, Reference
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.probing.paused import MOST_BYTES, can_be_paused
from autoinit.probing.probe import Training
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32").reshape(-1, 1, 8, 8), DIGITS.target)
RECIPES = [OWN, *(Recipe(base=name) for name in ("he_normal", "xavier_normal", "orthogonal", "lecun_normal"))]
FORKS = "fork" in multiprocessing.get_all_start_methods()


class Restless(nn.Module):
    """Has all that a pause could lose: batch statistics, dropout, a count of its own, noise of numpy and Python."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(288, 10)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        noise = 1 + 0.01 * random.random() + 0.01 * np.random.rand() if self.training else 1.0
        return self.head(self.body(x)) * (noise / (1 + 0.001 * self.calls))


def adam(parameters: Any) -> Any:
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)


def momentum(parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


@pytest.fixture(params=[adam, momentum])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    torch.manual_seed(0)
    task = make_task(Restless(), DATA, optimizer=request.param, val_data=(DATA[0][:200], DATA[1][:200]))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def go_on(job: Job, curve: Curve) -> bool:
    return True


def first_round(steps: int = 6) -> list[Job]:
    return [Job(place, "search", Candidate(one), 7, steps, pauses=True) for place, one in enumerate(RECIPES)]


def second_round(places: Sequence[int], steps: int = 15, pauses: bool = True) -> list[Job]:
    """Returns jobs that go on with those of the first round."""
    return [Job(at, "search", Candidate(RECIPES[at]), 7, steps, pauses=pauses, goes_on=True) for at in places]


def from_the_start(jobs: Sequence[Job]) -> list[Job]:
    """Returns the same jobs, which look where the first round ended too."""
    return [dataclasses.replace(job, rungs=(6,), pauses=False, goes_on=False) for job in jobs]


def look(bench: Bench, step: int) -> float:
    """Returns what an evaluation costs after so many steps."""
    return bench.task.forwards(bench.held_back(first_round()[0])(step)) / 3


def curves(outcomes: Iterator[Outcome]) -> list[Curve]:
    return [dataclasses.replace(one.curve, seconds=0.0) for one in outcomes if one.curve is not None]


def test_who_goes_on_ends_as_if_it_had_never_stopped(bench: Bench) -> None:
    executor = Sequential(bench)
    list(executor.run(first_round(), go_on))
    resumed = curves(executor.run(second_round([3, 0, 1]), go_on))
    assert resumed == curves(executor.run(from_the_start(second_round([3, 0, 1])), go_on))
    assert [steps for steps, _ in resumed[0].held_back] == [6, 15]


def test_only_what_is_new_is_charged(bench: Bench) -> None:
    executor = Sequential(bench)
    first = list(executor.run(first_round(), go_on))
    second = list(executor.run(second_round([0, 2]), go_on))
    assert [one.spent for one in first] == pytest.approx([6 + look(bench, 6)] * 5)
    assert [one.spent for one in second] == pytest.approx([9 + look(bench, 15)] * 2)
    assert look(bench, 15) > look(bench, 6)


def test_the_model_is_rewound_after_what_was_kept(bench: Bench) -> None:
    before = {name: tensor.clone() for name, tensor in bench.task.model.state_dict().items()}
    executor = Sequential(bench)
    list(executor.run(first_round(), go_on))
    list(executor.run(second_round([1]), go_on))
    bench.snapshot.rewind()
    for name, tensor in bench.task.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert bench.task.model.calls == 0


def test_what_was_left_behind_is_forgotten(bench: Bench) -> None:
    executor = Sequential(bench)
    list(executor.run(first_round(), go_on))
    assert len(bench.paused) == 5
    second = second_round([1, 2, 3])
    list(executor.run(second, go_on))
    assert len(bench.paused) == 5, "two that were left behind, and the three that may go on"
    list(executor.run([dataclasses.replace(second[0], steps=20)], go_on))
    assert len(bench.paused) == 3
    list(executor.run([Job(10, "final", Candidate(OWN), 8, 4)], go_on))
    assert len(bench.paused) == 0


def test_who_diverged_or_is_lost_begins_anew(bench: Bench) -> None:
    executor = Sequential(bench)
    (job,) = second_round([2])
    outcome = next(executor.run([job], go_on))
    assert outcome.curve is not None
    assert outcome.curve.steps == 15
    assert outcome.spent == pytest.approx(15 + look(bench, 15))


@pytest.mark.skipif(not FORKS, reason="no fork here")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_workers_go_on_with_what_they_kept(bench: Bench, count: int) -> None:
    def rounds(executor: Executor) -> list[Outcome]:
        found = list(executor.run(first_round(), go_on)) + list(executor.run(second_round([4, 1, 0]), go_on))
        return [
            dataclasses.replace(one, curve=dataclasses.replace(one.curve, seconds=0.0)) for one in found if one.curve
        ]

    alone = rounds(Sequential(bench))
    assert len(alone) == 8
    executor = Processes(bench, count)
    try:
        assert rounds(executor) == alone
    finally:
        executor.close()


@pytest.mark.skipif(not FORKS, reason="no fork here")
def test_what_a_dead_worker_kept_is_trained_from_the_start(bench: Bench) -> None:
    executor = Processes(bench, 2)
    try:
        list(executor.run(first_round(), go_on))
        keeper = executor._keepers[1]
        assert keeper.process.pid is not None
        os.kill(keeper.process.pid, signal.SIGKILL)
        keeper.process.join(10)
        jobs = second_round([0, 1, 2, 3, 4])
        found = list(executor.run(jobs, go_on))
        anew = [one.spent > 10 + look(bench, 15) for one in found]
        assert anew[1]
        assert not all(anew)
        whole = curves(Sequential(bench).run([dataclasses.replace(job, goes_on=False) for job in jobs], go_on))
        assert [one.losses for one in curves(iter(found))] == [one.losses for one in whole]
    finally:
        executor.close()


def test_a_veto_that_comes_late_is_heard() -> None:
    """In float16 the first gradients tell of the loss scale only, until that has come down."""

    def large(output: Tensor, target: Tensor) -> Tensor:
        return 3e4 * nn.functional.cross_entropy(output.float(), target)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    task = make_task(model, DATA, optimizer=momentum, loss=large, autocast=torch.float16)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        half = Bench(task, graph, snapshot, seed=0)
        job = Job(0, "search", Candidate(Recipe(base="he_normal")), 7, 8, reference=Reference(1e-2), pauses=True)
        first = half.perform(job, lambda curve: True)
        assert first.curve is not None
        assert (first.curve.steps, first.curve.glance, first.reason) == (8, None, "")
        second = half.perform(dataclasses.replace(job, steps=30, goes_on=True), lambda curve: True)
        assert second.curve is not None
        assert 8 < second.curve.steps < 30
        assert "times that of a constant guess" in second.reason


def test_large_models_and_what_stores_much_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def can(model: nn.Module, count: int) -> bool:
        task = make_task(model, (DATA[0].reshape(-1, 64), DATA[1]), optimizer=adam)
        before = copy.deepcopy(model.state_dict())
        with task.preserved() as snapshot:
            found = can_be_paused(task, snapshot, count, Tally())
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, before[name])
        return found

    width = 1024
    plain = nn.Sequential(nn.Linear(64, width, bias=False), nn.Linear(width, 10, bias=False))
    held = 3 * 4 * (64 + 10) * width  # the weights and Adam's two moments
    most = MOST_BYTES // (held + 8)  # and Adam's counts of its steps
    assert can(plain, most)
    assert not can(plain, most + 2)

    class Stores(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            self.seen = super().forward(x).detach().repeat(1, 1000)
            return self.seen[:, :10] * 0 + super().forward(x)

    class Hides(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            self.state = {"last": [(super().forward(x).detach().repeat(1, 1000),)]}
            return super().forward(x)

    assert can(Hides(nn.Linear(64, 10)), 10)
    assert not can(Hides(nn.Linear(64, 10)), 400)
    assert can(Stores(nn.Linear(64, 10)), 10)
    assert not can(Stores(nn.Linear(64, 10)), 200)
    monkeypatch.setattr(Training, "go_on", raising)
    assert not can(Stores(nn.Linear(64, 10)), 1)


def raising(*arguments: object) -> Curve:
    raise MemoryError
