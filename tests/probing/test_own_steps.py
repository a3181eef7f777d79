"""How steps of one's own are taken: gradients are seen where they arrive, and a training waits and is closed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.judging.budget import Tally
from autoinit.judging.trials import Candidate, Job
from autoinit.own.task import own_task
from autoinit.probing.bench import Bench
from autoinit.probing.paused import can_be_paused
from autoinit.probing.probe import probe
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import trace_task

PIXELS, LABELS = (torch.tensor(part) for part in load_digits(return_X_y=True))
BATCHES = list(zip((PIXELS / 16).float()[:960].split(32), LABELS[:960].split(32), strict=True))


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 10))


def trained(after: str = "", closed: list[int] | None = None) -> object:
    """A training whose gradients are gone after a step, or lie there, or never lay in `.grad`."""

    def train(model: nn.Module, seed: int) -> Iterator[Tensor | autoinit.Step]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        generator = torch.Generator().manual_seed(seed)
        try:
            while True:
                for place in torch.randperm(len(BATCHES), generator=generator).tolist():
                    pixels, labels = BATCHES[place]
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(pixels), labels)
                    if after in ("told", "untold"):
                        names = [name for name, _ in model.named_parameters()]
                        found = torch.autograd.grad(loss, list(model.parameters()))
                        for parameter, gradient in zip(model.parameters(), found, strict=True):
                            parameter.grad = gradient
                    else:
                        loss.backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=after in ("none", "told", "untold")) if after else None
                    value = loss.detach()
                    yield autoinit.Step(value, dict(zip(names, found, strict=True))) if after == "told" else value
        finally:
            if closed is not None:
                closed.append(seed)

    return train


def task_of(train: object) -> Task:
    return own_task(net(), train=train, example=BATCHES[0], validate=lambda model, part: 1.0)


def bench_of(task: Task) -> Bench:
    return Bench(task, trace_task(task), task.preserved().__enter__(), 0)


def job(number: int, steps: int, **rest: bool) -> Job:
    recipe = Recipe(base="he_normal", log2_gain=float(number))
    return Job(number, "search", Candidate(recipe if number else OWN), 5, steps, **rest)


@pytest.mark.parametrize("after", ["", "zeros", "none", "told"])
def test_gradients_are_those_of_a_plain_training_whatever_becomes_of_them_after_a_step(after: str) -> None:
    def plain(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)

    loss = make_task(net(), BATCHES, val_data=BATCHES[:2], loss=F.cross_entropy, optimizer=plain)
    loss.train = tuple(BATCHES)
    with loss.preserved():
        expected = probe(loss, steps=24, seed=5)
    task = task_of(trained(after))
    with task.preserved():
        found = probe(task, steps=24, seed=5)
    assert found.losses == expected.losses
    assert found.glance == expected.glance
    assert found.gradient_range == expected.gradient_range is not None


def test_where_nothing_shows_gradients_nothing_is_vetoed_for_it() -> None:
    task = task_of(trained("untold"))
    bench = bench_of(task)
    outcome = bench.perform(job(0, 24), lambda curve: True)
    assert outcome.curve is not None
    assert (outcome.reason, outcome.curve.steps) == ("", 24)
    assert (outcome.curve.glance, outcome.curve.gradient_range) == (None, None)


def test_trainings_that_wait_go_on_as_if_they_had_not_and_are_closed_at_the_end() -> None:
    closed: list[int] = []
    bench = bench_of(task_of(trained(closed=closed)))
    closed.clear()
    whole = [bench.perform(job(number, 24), lambda curve: True).curve for number in range(3)]
    assert len(closed) == 3
    closed.clear()
    for number in range(3):
        bench.perform(job(number, 8, pauses=True), lambda curve: True)
    assert (len(bench.paused), closed) == (3, [])
    halves = [bench.perform(job(number, 24, goes_on=True), lambda curve: True).curve for number in (2, 0)]
    assert [half.losses for half in halves if half] == [whole[2].losses, whole[0].losses]  # type: ignore[union-attr]
    bench.paused.close()
    assert len(closed) == 3


def test_what_ends_early_is_closed_too() -> None:
    closed: list[int] = []
    bench = bench_of(task_of(trained(closed=closed)))
    closed.clear()
    bench.perform(Job(0, "search", Candidate(OWN), 5, 24, rungs=(8,)), lambda curve: False)
    assert closed == [5]


def test_a_candidate_that_fails_or_is_not_finite_ends_alone() -> None:
    def train(model: nn.Module, seed: int) -> Iterator[float]:
        spread = float(model[3].weight.detach().std())  # type: ignore[index,union-attr,operator]
        for step in range(10_000):
            if spread > 1 and step == 4:
                raise FloatingPointError("too large")
            yield float("nan") if spread < 0.01 and step == 2 else 1.0 / (1 + step)

    task = own_task(net(), train=train, example=BATCHES[0])
    bench = bench_of(task)
    outcomes = [
        bench.perform(Job(place, "search", Candidate(recipe), 5, 16), lambda curve: True)
        for place, recipe in enumerate((OWN, Recipe(base="he_normal", log2_gain=3.0), Recipe(head="zero")))
    ]
    assert outcomes[0].curve is not None
    said = r"StepError: train failed in step 5 \(line \d+ of test_own_steps\.py\): FloatingPointError: too large\."
    assert re.fullmatch(said, outcomes[1].reason)
    assert outcomes[2].curve is not None
    assert outcomes[2].curve.diverged_at == 3


def test_the_memory_of_what_waits_is_counted_with_what_the_training_keeps() -> None:
    def train(model: nn.Module, seed: int) -> Iterator[float]:
        replay = {"states": [torch.zeros(1 << 20) for _ in range(16)]}  # 64 MiB
        while True:
            yield float(len(replay))

    tally = Tally()
    for count, fits in ((2, True), (8, False)):
        task = own_task(net(), train=train, example=BATCHES[0])
        with task.preserved() as snapshot:
            assert can_be_paused(task, snapshot, count, tally) is fits
    assert tally.steps == 2
