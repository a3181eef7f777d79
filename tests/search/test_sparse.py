"""A ticket against dense weights at equal multiply-adds."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Trial
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.sparse import equal_operations, share_left
from autoinit.task.task import Start, make_task

NAME = "ticket-0123abcd"


def test_a_share_counts_each_weight_as_often_as_it_is_used() -> None:
    pixels, labels = load_digits(return_X_y=True)
    pictures = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    task = make_task(model, data=(pictures, torch.tensor(labels)), seed=0)
    mask = torch.zeros(4, 1, 3, 3, dtype=torch.bool)
    mask[:1] = True
    found = share_left(task, Start(NAME, "a ticket", {}, {"0.weight": mask}))
    conv, head = 36 * 36, 1440  # 36 weights at 36 places
    assert found == pytest.approx((conv / 4 + head) / (conv + head))
    assert not any(module._forward_hooks for module in model.modules())


def trial(number: int, recipe: Recipe, seed: int, losses: list[float]) -> Trial:
    curve = Curve(losses=tuple(losses))
    return Trial(number, "gate", Candidate(recipe), seed, curve, None, "complete")


def test_the_dense_run_is_read_where_it_has_cost_as_much() -> None:
    dense, ticket = [8.0, 4.0, 2.0, 1.0], [8.0, 4.0, 4.0, 2.0]
    trials = [trial(0, OWN, 0, dense), trial(1, Recipe(start=NAME), 0, ticket)]
    assert equal_operations(trials, NAME, 1.0) == [pytest.approx(math.log(2))]
    assert equal_operations(trials, NAME, 0.5) == [pytest.approx(math.log(0.5))]
