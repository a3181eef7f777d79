"""Every measured signal against a slow reference in plain autograd."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import unchanged
from once import mnist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from zoo import ZOO

from autoinit.activations import FORMULAS, GRID, Activation
from autoinit.graph import Graph
from autoinit.probing.signals import Signals, cosine, dead_share, gradient_norms, measure, saturated_share, steepest
from autoinit.task.task import Task, make_task
from autoinit.tracing.tracing import read_graph

X, Y = mnist()
X = X[::5] / 255
Y = Y[::5]


def graph_of(task: Task) -> Graph:
    with task.preserved():
        return read_graph(task.model, lambda: task.loss(task.train[0]))


def measured(model: nn.Module, data: Any = (X, Y), **options: Any) -> tuple[Task, Signals]:
    with unchanged(model):
        task = make_task(model, data, **options)
        return task, measure(task, graph_of(task))


def deep(activation: type[nn.Module], depth: int = 4, width: int = 32) -> nn.Sequential:
    sizes = [784] + [width] * depth
    hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def reference(model: nn.Sequential, batch: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The loss, each linear layer's output, and each parameter's gradient, by hand."""
    x, outputs = batch[0], []
    for part in model:
        x = part(x)
        if isinstance(part, nn.Linear):
            outputs.append(x)
    loss = F.cross_entropy(x, batch[1])
    return loss, outputs, list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid, nn.GELU])
def test_forward_and_gradients_are_plain_autograds(activation: type[nn.Module]) -> None:
    model = deep(activation)
    task, signals = measured(model)
    loss, outputs, gradients = reference(model, task.train[0])
    assert signals.loss == pytest.approx(loss.item())
    assert len(signals.layers) == 5
    weights = [part.weight for part in model if isinstance(part, nn.Linear)]
    for layer, output, gradient, weight in zip(signals.layers, outputs, gradients[::2], weights, strict=True):
        assert layer.forward_mean == pytest.approx(output.mean().item(), abs=1e-6)
        assert layer.forward_std == pytest.approx(output.std().item())
        assert layer.grad_norm == pytest.approx(gradient.norm().item())
        assert layer.weight_norm == pytest.approx(weight.norm().item())
    assert signals.grad_norm == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item())


def test_agreement_is_the_cosine_of_the_halves_gradients() -> None:
    model = deep(nn.Tanh)
    task, signals = measured(model)
    x, y = task.train[0]
    halves = []
    for part in (slice(0, 32), slice(32, 64)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[part]), y[part]), list(model.parameters()))
        halves.append(torch.cat([gradient.flatten() for gradient in gradients]).double())
    expected = F.cosine_similarity(halves[0], halves[1], dim=0).item()
    assert signals.agreement == pytest.approx(expected, rel=1e-4)
    assert expected < 0.999


def test_dead_and_saturated_are_counted_by_hand() -> None:
    model = deep(nn.Tanh)
    with torch.no_grad():
        model[0].weight.mul_(20)
        model[2].bias[:8] += 30  # flat for every row
    task, signals = measured(model)
    _, outputs, _ = reference(model, task.train[0])
    for layer, output in zip(signals.layers[:-1], outputs[:-1], strict=True):
        slope = 1 - output.tanh() ** 2
        assert layer.dead == pytest.approx((slope < 1e-3).all(0).float().mean().item())
        assert layer.saturated == pytest.approx((slope < 0.05).float().mean().item(), abs=0.01)
    assert signals.layers[1].dead is not None
    assert signals.layers[1].dead >= 0.25
    assert signals.layers[-1].dead is None


def test_units_that_only_the_sum_over_neighbours_shows_are_not_called_dead() -> None:
    case = ZOO["graph_attention"]()

    def step(model: nn.Module, batch: Any) -> Tensor:
        return case.loss(model, batch)

    with torch.no_grad():
        case.model.second.lin.weight.abs_().neg_()  # its outputs are negative, the other sum's before the ReLU are not
        case.model.skip.bias.fill_(50.0)
    task = make_task(case.model, [case.batch] * 4, step=step)
    found = {signal.name: signal for signal in measure(task, graph_of(task)).layers}
    assert found["second.lin.weight"].dead is None
    assert found["first.lin.weight"].saturated is None
    assert found["second.lin.weight"].grad_norm


def test_dead_relu_units_are_those_without_a_positive_row() -> None:
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        model[0].bias[:16] -= 10
    _, signals = measured(model)
    assert signals.layers[0].dead == 0.25
    assert signals.layers[0].saturated is None  # ReLU is steep on one side


def test_channels_of_a_convolution_are_its_units() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    with torch.no_grad():
        model[0].bias[:2] -= 10
    _, signals = measured(model, (X.reshape(-1, 1, 28, 28), Y))
    assert signals.layers[0].dead == 0.25


def test_what_a_normalization_hides_is_not_guessed() -> None:
    model = nn.Sequential(nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    _, signals = measured(model)
    assert signals.layers[0].dead is None
    assert signals.layers[0].forward_std is not None


def test_parametrized_weights_go_by_the_derived_name() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(784, 16)), nn.Tanh(), nn.Linear(16, 10))
    task, signals = measured(model)
    first = signals.layers[0]
    assert first.name == "0.weight"
    assert first.weight_norm == pytest.approx(model[0].weight.norm().item())
    loss = F.cross_entropy(model(task.train[0][0]), task.train[0][1])
    originals = [p for name, p in model.named_parameters() if "original" in name]
    norms = [gradient.norm().item() for gradient in torch.autograd.grad(loss, originals)]
    assert first.grad_norm == pytest.approx(math.hypot(*norms))


def test_clipped_steps_mixed_precision_and_frozen_layers() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss.detach()

    _, signals = measured(deep(nn.Tanh), step=step)
    assert signals.grad_norm == pytest.approx(1e-3, rel=1e-2)
    model = deep(nn.Tanh)
    model[0].requires_grad_(False)
    _, signals = measured(model, autocast=torch.bfloat16)
    assert signals.layers[0].grad_norm is None
    assert signals.layers[1].grad_norm is not None


def test_explosion_is_told_and_not_raised() -> None:
    model = deep(nn.ReLU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e12)
    _, signals = measured(model)
    assert not math.isfinite(signals.loss)
    assert signals.agreement is None


def test_zero_gradients_have_no_direction() -> None:
    zero, one = {"a": torch.zeros(3)}, {"a": torch.ones(3)}
    assert cosine(zero, one) is None
    assert cosine({"a": torch.full((3,), math.nan)}, one) is None
    assert cosine(one, {"a": -one["a"]}) == pytest.approx(-1)
    assert cosine({}, {}) is None


class FixedBatch(nn.Module):
    """Takes batches of 8 rows only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.zeros(8, 2)


@pytest.mark.parametrize(
    ("model", "size"),
    [(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), 2), (FixedBatch(), 8)],
)
def test_a_model_that_takes_no_half_batch_has_no_agreement(model: nn.Module, size: int) -> None:
    batches = [(torch.randn(size, 4), torch.arange(size) % 2) for _ in range(4)]
    _, signals = measured(model, batches)
    assert signals.agreement is None
    assert math.isfinite(signals.grad_norm)


def test_a_single_value_has_no_spread() -> None:
    batches = [(torch.randn(1, 4), torch.randn(1, 1)) for _ in range(6)]
    _, signals = measured(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), batches)
    assert signals.layers[0].forward_std is not None
    assert signals.layers[1].forward_std is None
    assert signals.layers[1].forward_mean is not None


def test_complex_gradients_have_a_direction() -> None:
    one = {"a": torch.tensor([1 + 2j, 3j])}
    assert cosine(one, one) == pytest.approx(1)
    assert cosine(one, {"a": -one["a"]}) == pytest.approx(-1)
    assert cosine(one, {"a": 1j * one["a"]}) == pytest.approx(0)


def test_gradient_norms_of_sparse_gradients() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    model(torch.tensor([1, 1, 2])).sum().backward()
    assert gradient_norms(model) == {"weight": pytest.approx(math.sqrt(3 * 4 + 3))}


BOUNDED = {"tanh", "sigmoid", "softsign", "relu6", "hardtanh", "hardsigmoid", "erf"}


@pytest.mark.parametrize("name", FORMULAS)
def test_only_bounded_activations_saturate(name: str) -> None:
    activation = Activation(name)
    units = torch.randn(50, 4)
    share = saturated_share(activation, units)
    assert (share is not None) == (name in BOUNDED)
    if share is not None:
        slope = np.abs(activation.slope(units.double().numpy()))
        assert share == pytest.approx((slope < 0.05 * steepest(activation)).mean())


def test_a_tabulated_activation_is_like_its_formula() -> None:
    units = torch.linspace(-3, 3, 90).reshape(30, 3) * torch.tensor([1.0, 0.1, 5.0]) - torch.tensor([0.0, 5.0, 0.0])
    for name in ("tanh", "relu"):
        formula = Activation(name)
        table = Activation("custom", table=tuple(formula(GRID).tolist()))
        assert dead_share(table, units) == dead_share(formula, units)
        assert (saturated_share(table, units) is None) == (saturated_share(formula, units) is None)
