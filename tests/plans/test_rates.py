from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from graphs import mlp
from torch import nn
from torch.nn.utils import parametrizations

import autoinit
from autoinit.errors import ArgumentError, ModelError, OptimizerError, PlanMismatchError
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import Recipe

# Learning rates by group

WIDE = Recipe(base="he_normal", widths="mup", base_width=2)


def network(width: int = 8, depth: int = 4) -> nn.Sequential:
    """The model that `graphs.mlp` describes."""
    sizes = [784, *[width] * (depth - 1), 10]
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def rates(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, float]:
    """Learning rate of each parameter; fails where one stands in two groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


@pytest.mark.parametrize(
    ("optimizer", "matrix", "head", "vector"),
    [
        ("adam", 0.25, 0.25, 1.0),
        ("AdamW", 0.25, 0.25, 1.0),
        (torch.optim.Adam, 0.25, 0.25, 1.0),
        (torch.optim.RMSprop, 0.25, 0.25, 1.0),
        ("sgd", 1.0, 0.25, 4.0),
        (torch.optim.SGD, 1.0, 0.25, 4.0),
    ],
)
def test_groups_have_the_learning_rates_of_their_factors(
    optimizer: str | type, matrix: float, head: float, vector: float
) -> None:
    model = network()
    found = rates(model, resolve(WIDE, mlp()).param_groups(model, 0.1, optimizer=optimizer))
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, factor in {"1.weight": matrix, "3.weight": head, "1.bias": vector, "0.weight": vector}.items():
        assert found[name] == pytest.approx(0.1 * factor)
    assert found["3.bias"] == pytest.approx(0.1)


def test_one_group_where_nothing_differs() -> None:
    groups = resolve("he_normal", mlp()).param_groups(network(), 0.1, betas=(0.9, 0.95))
    assert [(group["lr"], group["betas"], len(group["params"])) for group in groups] == [(0.1, (0.9, 0.95), 8)]


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_decay_of_a_step_is_the_same_in_every_group(optimizer: type) -> None:
    model = network()
    groups = resolve(WIDE, mlp()).param_groups(model, 0.1, optimizer=optimizer, weight_decay=0.5)
    assert len(groups) > 1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer(groups).step()
    for name, parameter in model.named_parameters():  # without gradients, only the decay of 0.1 · 0.5 acts
        torch.testing.assert_close(parameter.detach(), before[name] * 0.95)


def test_frozen_tied_and_parametrized_parameters() -> None:
    model = network()
    model[2].weight = model[1].weight
    parametrizations.weight_norm(model[3])
    model[0].weight.requires_grad_(False)
    plan = autoinit.apply_(model, WIDE, torch.randn(4, 784))
    found = rates(model, plan.param_groups(model, 1.0))
    assert "0.weight" not in found
    assert "2.weight" not in found
    assert found["1.weight"] == 0.25
    originals = {rate for name, rate in found.items() if name.startswith("3.parametrizations.weight.")}
    assert originals == {0.25}
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_wrappers_are_looked_through() -> None:
    model = network()
    wrapped = nn.Module()
    wrapped.module = nn.Module()
    wrapped.module._orig_mod = model
    groups = resolve(WIDE, mlp()).param_groups(wrapped, 1.0)
    assert rates(model, groups) == rates(model, resolve(WIDE, mlp()).param_groups(model, 1.0))
    assert len(resolve(WIDE, mlp()).param_groups(torch.compile(model, backend="eager"), 1.0)) == len(groups)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"model": network(width=9)}, PlanMismatchError, r"0\.weight has shape \(9, 784\), in the plan \(8, 784\)"),
        ({"model": network(depth=5)}, PlanMismatchError, r"says nothing about 4\.weight"),
        ({"model": network(depth=3)}, PlanMismatchError, r"the model has no 3\.weight"),
        ({"model": network().requires_grad_(False)}, ModelError, "No parameter of the model is trainable"),
        ({"optimizer": "muon"}, OptimizerError, "'muon' follows the width is not known.*Pass 'adam' if"),
        ({"optimizer": torch.optim.LBFGS}, OptimizerError, "'LBFGS'"),
        ({"optimizer": 3}, OptimizerError, "Got int"),
        ({"lr": 0.0}, ArgumentError, "positive number. Got 0.0"),
        ({"lr": "search"}, ArgumentError, "Got 'search'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    given: dict[str, Any] = {"model": network(), "lr": 0.1, **arguments}
    with pytest.raises(error, match=said):
        resolve(WIDE, mlp()).param_groups(**given)
