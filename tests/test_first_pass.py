"""What one batch tells of each recipe's weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.bench import Bench
from autoinit.budget import Tally
from autoinit.first_pass import first_passes
from autoinit.recipe import Recipe
from autoinit.task import make_task
from autoinit.tracing import trace_task


@pytest.fixture
def bench() -> Iterator[Bench]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    rows, labels = load_digits(return_X_y=True)
    task = make_task(model, (torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)))
    with task.preserved() as snapshot:
        yield Bench(task, trace_task(task), snapshot, 0)


def test_loss_and_gradients_are_those_of_the_drawn_weights(bench: Bench) -> None:
    recipe = Recipe(base="orthogonal")
    found = first_passes(bench, [Recipe(), recipe])
    assert found is not None
    assert found[recipe] != found[Recipe()]
    bench.draw(recipe)
    task = bench.task
    losses, norms = [], []
    for batch in task.train:
        task.model.zero_grad()
        losses.append(math.log(task.backward(batch) / task.reference))  # type: ignore[operator]
        each = [parameter.grad.norm() for parameter in task.model.parameters() if parameter.ndim > 1]  # type: ignore[union-attr]
        norms.append(math.log10(torch.stack(each).norm()))
    assert min(losses) <= found[recipe]["zero_loss"] + 1e-6
    assert found[recipe]["zero_loss"] <= max(losses) + 1e-6
    assert any(found[recipe]["zero_gradient"] == pytest.approx(norm, abs=1e-4) for norm in norms)


def test_the_owners_weights_are_put_back_and_the_passes_counted(bench: Bench) -> None:
    before = [parameter.clone() for parameter in bench.task.model.parameters()]
    tally = Tally()
    first_passes(
        bench, [Recipe(), Recipe(base="he_normal"), Recipe(base="orthogonal", calibration="lsuv")], tally=tally
    )
    assert all(torch.equal(one, two) for one, two in zip(before, bench.task.model.parameters(), strict=True))
    assert 3 < tally.steps < 10


def test_what_cannot_be_drawn_has_none_and_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Bench.draw

    def refuse(self: Bench, recipe: Recipe, tally: Tally | None = None) -> object:
        if recipe.base == "he_normal":
            raise ValueError("a shape that this draw cannot take")
        return draw(self, recipe, tally)

    monkeypatch.setattr(Bench, "draw", refuse)
    found = first_passes(bench, [Recipe(base="he_normal"), Recipe(base="lecun_normal")])
    assert found is not None
    assert found[Recipe(base="he_normal")] == {}
    assert found[Recipe(base="lecun_normal")]


def test_where_it_would_take_too_long_nothing_is_measured(bench: Bench) -> None:
    before = [parameter.clone() for parameter in bench.task.model.parameters()]
    tally = Tally()
    assert first_passes(bench, [Recipe(base="he_normal")] * 50, seconds=1e-6, tally=tally) is None
    assert tally.steps < 2
    assert all(torch.equal(one, two) for one, two in zip(before, bench.task.model.parameters(), strict=True))
