from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoinit.judging.budget import Tally, evaluated
from autoinit.judging.score import Curve, Reference
from autoinit.judging.trials import Candidate, Job
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.batches import rows
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


class Fragile(nn.Sequential):
    """A model that raises what is put into `trouble`, once, and multiplies by what is put into `poison`, once."""

    trouble: ClassVar[list[BaseException]] = []
    poison: ClassVar[list[float]] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.trouble:
            raise self.trouble.pop()
        factor = self.poison.pop() if self.poison else 1.0
        return factor * super().forward(x)


@pytest.fixture
def bench() -> Iterator[Bench]:
    torch.manual_seed(0)
    model = Fragile(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        yield Bench(task, graph, snapshot, seed=0)


def job(recipe: Recipe = OWN, steps: int = 5, **rest: object) -> Job:
    return Job(0, "search", Candidate(recipe), seed=0, steps=steps, **rest)  # type: ignore[arg-type]


def go_on(curve: Curve) -> bool:
    return True


def losses(bench: Bench, what: Job) -> tuple[float, ...]:
    outcome = bench.perform(what, go_on)
    assert outcome.curve is not None
    return outcome.curve.losses


def test_the_owner_s_weights_are_trained_as_they_are(bench: Bench) -> None:
    before = [p.clone() for p in bench.task.model.parameters()]
    found = losses(bench, job())
    bench.snapshot.rewind()
    for now, then in zip(bench.task.model.parameters(), before, strict=True):
        assert torch.equal(now, then)
    first = next(iter(bench.task.order(0, 1)))
    assert found[0] == pytest.approx(bench.task.loss(first).item())


def test_each_job_starts_from_the_owner_s_weights(bench: Bench) -> None:
    small_head = Recipe(head="eighth")
    assert losses(bench, job(small_head)) == losses(bench, job(small_head))


def test_the_plan_of_a_draw_gives_the_same_weights_again(bench: Bench) -> None:
    plan = bench.draw(Recipe(base="orthogonal", calibration="lsuv"))
    drawn = [p.clone() for p in bench.task.model.parameters()]
    losses(bench, job(steps=3))
    bench.set(plan)
    for now, then in zip(bench.task.model.parameters(), drawn, strict=True):
        assert torch.equal(now, then)


def test_a_job_with_a_plan_trains_its_very_weights(bench: Bench) -> None:
    recipe = Recipe(base="orthogonal", calibration="lsuv")
    plan = bench.draw(recipe)
    assert losses(bench, job(plan=plan)) == losses(bench, job(recipe))


def test_the_gate_is_evaluated_on_rows_that_the_search_never_sees(bench: Bench) -> None:
    gate = Job(0, "gate", Candidate(OWN), seed=0, steps=500)
    assert tuple(bench.held_back(gate)(10)) == bench.task.gate_eval
    assert tuple(bench.held_back(job(steps=500))(500)) == bench.task.probe_eval


def test_a_short_run_is_evaluated_on_fewer_rows(bench: Bench) -> None:
    """On all of them an evaluation would cost more than the run itself."""
    x, y = (torch.as_tensor(part) for part in DATA)
    batches = [(x[start : start + 16], y[start : start + 16]) for start in range(0, 1600, 16)]
    task = make_task(bench.task.model, batches, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    small = dataclasses.replace(bench, task=task)
    assert len(task.probe_eval) > 6
    assert small.held_back(job(steps=12))(3) == evaluated(task.probe_eval, 3)
    assert len(small.held_back(job(steps=12))(12)) == 6
    assert small.perform(job(steps=12), go_on).spent == pytest.approx(12 + 6 / 3)


def test_steps_evaluations_and_calibrations_are_counted(bench: Bench) -> None:
    task = bench.task
    evaluations = 2 * sum(rows(group) for group in evaluated(task.probe_eval, 9)) / rows(task.train[0])
    plain = bench.perform(job(steps=9, rungs=(3,)), go_on)
    assert plain.spent == pytest.approx(9 + evaluations / 3)
    tally = Tally()
    calibrated = Recipe(base="orthogonal", calibration="lsuv")
    bench.draw(calibrated, tally)
    assert tally.steps > 0
    assert bench.perform(job(calibrated, steps=9, rungs=(3,)), go_on).spent == pytest.approx(plain.spent + tally.steps)


def test_a_rung_may_end_it(bench: Bench) -> None:
    outcome = bench.perform(job(steps=20, rungs=(8,)), lambda curve: False)
    assert outcome.curve is not None
    assert outcome.curve.steps == 8


def test_a_divergence_is_a_curve(bench: Bench) -> None:
    Fragile.poison.append(math.nan)
    outcome = bench.perform(job(), go_on)
    assert outcome.curve is not None
    assert outcome.curve.diverged_at == 1


def test_hopeless_weights_are_vetoed_where_there_is_a_reference(bench: Bench) -> None:
    huge = Recipe(log2_gain=20.0)
    assert bench.perform(job(huge), go_on).reason == ""
    outcome = bench.perform(job(huge, reference=Reference(2.3)), go_on)
    assert "times that of a constant guess" in outcome.reason
    assert outcome.spent == 1
    assert bench.perform(job(reference=Reference(2.3)), go_on).reason == ""


def test_an_exception_ends_one_job_only(bench: Bench) -> None:
    Fragile.trouble.append(torch.OutOfMemoryError("tried to allocate 80 GiB"))
    failed = bench.perform(job(), go_on)
    assert (failed.curve, failed.reason, failed.spent) == (None, "OutOfMemoryError: tried to allocate 80 GiB", 1)
    assert bench.perform(job(), go_on).curve is not None


def test_ctrl_c_is_not_a_failed_job(bench: Bench) -> None:
    Fragile.trouble.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.perform(job(), go_on)
