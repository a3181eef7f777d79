from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoinit.budget import Budget, Meter, Schedule
from autoinit.recipe import Recipe
from autoinit.score import Curve
from autoinit.task import make_task
from autoinit.tracing import trace_task
from autoinit.trial import OWN, Bench, Candidate, ProgressEvent, ranking, stream

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
        yield Bench(task, graph, snapshot, Meter(Budget(steps=10_000)), Schedule.of(10_000), seed=0)


def test_the_owner_s_weights_are_trained_as_they_are(bench: Bench) -> None:
    before = [p.clone() for p in bench.task.model.parameters()]
    record = bench.run("search", Candidate(OWN), seed=0, steps=10)
    assert (record.state, record.number, record.reason) == ("complete", 0, "")
    bench.snapshot.rewind()
    for now, then in zip(bench.task.model.parameters(), before, strict=True):
        assert torch.equal(now, then)
    first = next(iter(bench.task.order(0, 1)))
    assert record.curve is not None
    assert record.curve.losses[0] == pytest.approx(bench.task.loss(first).item())


def test_each_trial_starts_from_the_owner_s_weights(bench: Bench) -> None:
    one = bench.run("search", Candidate(Recipe(head="eighth")), seed=0, steps=5)
    two = bench.run("search", Candidate(Recipe(head="eighth")), seed=0, steps=5)
    assert one.curve is not None
    assert two.curve is not None
    assert one.curve.losses == two.curve.losses


def test_the_plan_of_a_draw_gives_the_same_weights_again(bench: Bench) -> None:
    plan = bench.draw(Recipe(base="orthogonal", calibration="lsuv"))
    drawn = [p.clone() for p in bench.task.model.parameters()]
    bench.run("search", Candidate(OWN), seed=0, steps=3)
    bench.set(plan)
    for now, then in zip(bench.task.model.parameters(), drawn, strict=True):
        assert torch.equal(now, then)


def test_the_first_trial_sets_the_reference(bench: Bench) -> None:
    bench.run("search", Candidate(OWN), seed=0, steps=5)
    assert bench.reference is not None
    assert bench.reference.loss == pytest.approx(math.log(10), rel=0.01)  # entropy of ten balanced classes


def test_divergence_and_pruning_are_outcomes(bench: Bench) -> None:
    Fragile.poison.append(math.nan)
    diverged = bench.run("search", Candidate(OWN), seed=0, steps=20)
    assert (diverged.state, diverged.score is not None) == ("diverged", True)
    assert diverged.reason == "the loss was not finite at step 1"

    def stop(curve: Curve) -> bool:
        return False

    pruned = bench.run("search", Candidate(OWN), seed=0, steps=20, rungs=(8,), on_rung=stop)
    assert (pruned.state, pruned.reason) == ("pruned", "in the worse half at step 8")


def test_an_exception_ends_one_trial_only(bench: Bench) -> None:
    Fragile.trouble.append(torch.OutOfMemoryError("tried to allocate 80 GiB"))
    failed = bench.run("search", Candidate(OWN), seed=0, steps=5)
    assert (failed.state, failed.score) == ("failed", None)
    assert failed.reason == "OutOfMemoryError: tried to allocate 80 GiB"
    assert failed.total == math.inf
    assert bench.run("search", Candidate(OWN), seed=0, steps=5).state == "complete"


def test_ctrl_c_is_not_a_failed_trial(bench: Bench) -> None:
    Fragile.trouble.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.run("search", Candidate(OWN), seed=0, steps=5)


def test_steps_and_evaluations_are_charged(bench: Bench) -> None:
    bench.run("search", Candidate(OWN), seed=0, steps=9, rungs=(3,))
    evaluations = 2 * len(bench.task.probe_eval)
    assert bench.meter.steps == pytest.approx(9 + evaluations / 3)


def test_progress_is_told(bench: Bench) -> None:
    events: list[ProgressEvent] = []
    bench.progress = events.append
    bench.run("search", Candidate(OWN), seed=0, steps=5)
    assert events[0].stage == "search"
    assert events[0].message == "1 trials, leading: as_is"
    assert 0 < events[0].done < 1


def test_ranking_takes_each_recipe_at_its_best(bench: Bench) -> None:
    for lr_step in (-2, 0):
        bench.run("search", Candidate(OWN, lr_step), seed=0, steps=20)
    bench.run("final", Candidate(Recipe(base="he_normal")), seed=0, steps=20)
    assert [record.candidate for record in ranking(bench.records)] == [Candidate(OWN, 0)]


def test_streams_differ_by_name_and_seed() -> None:
    assert len({stream(0, "a"), stream(0, "b"), stream(1, "a")}) == 3
