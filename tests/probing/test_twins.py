"""Units that no training tells apart, against a slow reference: what fifty real steps leave equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.probing.twins import Twins, find_twins
from autoinit.task.task import measured_task
from autoinit.tracing.tracing import trace_task

X = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :5].argmax(1)


def mlp(activation: type[nn.Module]) -> nn.Sequential:
    layers = [part for a, b in pairwise((16, 12, 12, 5)) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


def constant() -> nn.Module:
    """Every value is equal: all hidden layers stay so."""
    model = mlp(nn.ReLU)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    return model


def zeros() -> nn.Module:
    """No gradient passes; with sigmoids it does after a step, and the units stay equal."""
    model = mlp(nn.Sigmoid)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def alike() -> nn.Module:
    """The second layer's units are equal, and the head reads them alike."""
    model = mlp(nn.Tanh)
    with torch.no_grad():
        model[2].weight.copy_(model[2].weight[:1].expand(12, 12).clone())
        nn.init.zeros_(model[2].bias)
        model[4].weight.copy_(model[4].weight[:, :1].expand(5, 12).clone())
    return model


def read_apart() -> nn.Module:
    """The second layer's units are equal, but the head reads each in its own way."""
    model = alike()
    nn.init.normal_(model.get_parameter("4.weight"), std=0.3)
    return model


class ZeroInSeries(nn.Module):
    """A gate of zeros behind a head of zeros: its first gradient comes after a step, and tells its units apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(16, 12), nn.Linear(16, 12), nn.Linear(12, 5)
        for layer in (self.gate, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x).tanh()
        return self.head(hidden + self.gate(x) * hidden)


def whole(model: nn.Module) -> list[Twins]:
    task = measured_task(model, (X, Y))
    graph = trace_task(task)
    with unchanged(model):
        return [twins for twins in find_twins(task, graph) if twins.whole]


def equal_after_training(model: nn.Module) -> set[str]:
    """The hidden matrices whose rows are equal after fifty steps of gradient descent."""
    trained = copy.deepcopy(model)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(trained(X), Y).backward()
        optimizer.step()
    hidden = [(name, p) for name, p in trained.named_parameters() if p.dim() > 1 and len(p) == 12]
    return {name for name, weight in hidden if torch.allclose(weight, weight[:1], atol=1e-4)}


BUILD: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "constant": (constant, {"0.weight", "2.weight"}),
    "zeros": (zeros, {"0.weight", "2.weight"}),
    "alike": (alike, {"2.weight"}),
    "read apart": (read_apart, set()),
    "zeros in series": (ZeroInSeries, set()),
    "random": (lambda: mlp(nn.Tanh), set()),
}


@pytest.mark.parametrize("case", BUILD)
def test_twins_are_the_units_that_training_leaves_equal(case: str) -> None:
    build, expected = BUILD[case]
    model = build()
    assert equal_after_training(model) == expected
    assert {twins.name for twins in whole(model)} == expected


def test_all_units_are_counted() -> None:
    assert whole(alike()) == [Twins("2.weight", 12, 12, whole=True)]


def test_a_step_that_clips_and_calls_backward_itself_is_followed() -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss.detach()

    for build, expected in ((alike, ["2.weight"]), (ZeroInSeries, [])):
        task = measured_task(build(), (X, Y), step=step)
        assert [twins.name for twins in find_twins(task, trace_task(task)) if twins.whole] == expected


def test_half_precision_does_not_hide_equal_units() -> None:
    task = measured_task(alike().bfloat16(), (X.bfloat16(), Y))
    assert [twins.name for twins in find_twins(task, trace_task(task)) if twins.whole] == ["2.weight"]
