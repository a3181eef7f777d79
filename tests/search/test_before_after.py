from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_iris
from torch import Tensor, nn

import autoinit
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import Recipe
from autoinit.search.before_after import before_and_after
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))


def iris() -> tuple[Any, Any]:
    rows, labels = load_iris(return_X_y=True)
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)


def test_both_weights_are_measured_and_the_model_is_as_before() -> None:
    model = net()
    task = make_task(model, iris())
    graph = trace_task(task)
    before = [parameter.clone() for parameter in model.parameters()]
    random = torch.get_rng_state()
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, 0)
        plan = bench.draw(Recipe(base="he_normal", log2_gain=2.0))
        snapshot.rewind()
        own, drawn = before_and_after(bench, plan)
        alone = before_and_after(bench, None)
    assert [layer.name for layer in own] == [layer.name for layer in drawn] == ["0.weight", "3.weight", "5.weight"]
    diagnosed = autoinit.diagnose(net(), iris()).signals.layers
    for mine, theirs in zip(own, diagnosed, strict=True):
        assert mine.weight_norm == theirs.weight_norm
    assert all(one.weight_norm > 2 * other.weight_norm for one, other in zip(drawn, own, strict=True))
    assert all(layer.forward_std and layer.grad_norm for layer in (*own, *drawn))
    assert alone == (own, ())
    assert all(map(torch.equal, before, model.parameters()))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("problem", [torch.OutOfMemoryError("full"), ValueError("the user's own check")])
def test_what_goes_wrong_costs_nothing_but_the_signals(problem: Exception) -> None:
    broken = False

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if broken:
            raise problem
        return nn.functional.cross_entropy(output, target)

    task = make_task(net(), iris(), loss=loss)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        broken = True
        assert before_and_after(Bench(task, graph, snapshot, 0), None) == ((), ())


def test_a_selection_has_the_signals_of_its_contender() -> None:
    budget = autoinit.Budget(steps=400)
    found = autoinit.select(net(), iris(), budget=budget, executor="sequential", apply=False)
    assert [layer.name for layer in found.before] == ["0.weight", "3.weight", "5.weight"]
    assert bool(found.after) == (found.contender is not None)
