"""Short trainings of recipes beside the owner's weights: what they show, and that they leave nothing behind."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.probing.beside import WORST, beside
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import trace_task


def deep_tanh() -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def digits(model: nn.Module) -> Task:
    pixels, labels = load_digits(return_X_y=True)
    return make_task(model, (pixels / 16, labels), optimizer=lambda them: torch.optim.SGD(them, lr=0.02, momentum=0.9))


def test_what_rescues_a_deep_net_leads_and_what_ruins_it_is_behind() -> None:
    task = digits(deep_tanh())
    with beside(task, trace_task(task), steps=16) as trainings:
        assert trainings.own == pytest.approx(math.log(math.log(10)), abs=0.02)  # it does not train at all
        assert trainings.lead(Recipe(base="orthogonal")) > 0.1
        assert trainings.lead(Recipe(base="he_normal", log2_gain=12.0)) < -0.1
        assert trainings.lead(OWN) == 0.0  # the same batches, the same weights


def test_everything_is_as_it_was_afterwards() -> None:
    model = deep_tanh().train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    task = digits(model)
    with beside(task, trace_task(task), steps=8) as trainings:
        trainings.lead(Recipe(base="orthogonal", calibration="lsuv"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_that_fails_is_as_far_behind_as_can_be() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.linear.weight.detach().abs().max() > 10:
                raise RuntimeError("too large")
            return self.linear(x)

    task = digits(Picky())
    with beside(task, trace_task(task), steps=8) as trainings:
        assert trainings.lead(Recipe(base="normal", log2_gain=9.0)) == -WORST
        assert abs(trainings.lead(Recipe(base="he_normal"))) < WORST
