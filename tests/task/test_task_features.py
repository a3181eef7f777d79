"""What is measured of a task: its owner's draw, its data, its optimizer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.knowledge.features import FEATURES
from autoinit.task.features import data_features, own_scales, task_features, task_fingerprint, training_features
from autoinit.task.task import example_task, make_task
from autoinit.tracing.tracing import trace_task


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = load_digits(return_X_y=True)
    return torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_what_came_later_and_tells_of_old_networks_is_in_no_fingerprint() -> None:
    task = make_task(mlp(), digits(), optimizer=torch.optim.SGD, lr=0.1)
    graph = trace_task(task)
    first = graph.layers[0]
    for field, same in (("modulates", True), ("conditions", True), ("closes_branch", False)):
        changed = dataclasses.replace(first, **{field: True})
        other = dataclasses.replace(graph, layers=(changed, *graph.layers[1:]))
        assert (task_fingerprint(task, other, {}) == task_fingerprint(task, graph, {})) is same


def test_a_task_is_described_whole() -> None:
    task = make_task(mlp(), digits(), optimizer=torch.optim.SGD, lr=0.1)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    found = task_features(task, trace_task(task))
    assert set(found) <= set(FEATURES)
    assert {name.split("_")[0] for name in found} == {"net", "own", "data", "train"}
    assert all(math.isfinite(value) for value in found.values())
    assert found["data_classes"] == pytest.approx(math.log2(10))
    assert found["data_entropy"] == pytest.approx(1, abs=0.01)
    assert found["data_size"] == 6
    assert found["data_reference"] == pytest.approx(math.log(math.log(10)), abs=0.01)
    assert found["own_gain"] == pytest.approx(-math.log2(math.sqrt(6)) / 2 - math.log2(math.sqrt(3)) / 2, abs=0.15)
    assert all(torch.equal(before[name], value) for name, value in task.model.state_dict().items())


def test_scales_are_of_the_weights_as_they_are_and_derived_ones_of_what_is_used() -> None:
    model = mlp()
    nn.init.constant_(model[0].weight, 0.25)
    nn.init.zeros_(model[2].weight)
    nn.utils.parametrizations.weight_norm(model[0])
    graph = trace_task(example_task(model, digits()))
    assert own_scales(model, graph) == {"0.weight": pytest.approx(0.25), "2.weight": 0.0}
    assert own_scales(model.to("meta"), graph) == {}


@pytest.mark.parametrize("rows", [40, 2000])
def test_rank_tells_how_many_directions_the_inputs_have(rows: int) -> None:
    torch.manual_seed(0)
    flat = torch.randn(rows, 1) * torch.ones(1, 30)
    round_ = torch.randn(rows, 30)
    assert data_features([(flat, torch.zeros(rows))])["data_rank"] == pytest.approx(1 / 30, rel=0.01)
    spread = data_features([(round_, torch.zeros(rows))])["data_rank"]
    assert (0.4 if rows < 100 else 0.9) < spread < 1.01


def test_rank_is_the_eigenvalues_participation_ratio() -> None:
    values = digits()[0][:200]
    eigenvalues = torch.linalg.eigvalsh(torch.cov(values.T))
    expected = float(eigenvalues.sum() ** 2 / eigenvalues.pow(2).sum()) / 64
    assert data_features([(values, torch.zeros(200))])["data_rank"] == pytest.approx(expected, rel=1e-3)


def test_tokens_and_constants_are_data_too() -> None:
    tokens = data_features([(torch.randint(0, 9, (8, 12)), torch.zeros(8))])
    assert (tokens["data_tokens"], tokens["data_size"]) == (1, pytest.approx(math.log2(12)))
    assert "data_rank" not in tokens
    constant = data_features([(torch.ones(8, 3), torch.zeros(8))])
    assert (constant["data_rank"], constant["data_mean"], constant["data_scale"]) == (0, 0, 0)
    assert data_features([]) == {}


def test_dicts_and_batches_of_other_lengths_are_read() -> None:
    batches = [{"x": torch.randn(8, 3), "labels": torch.zeros(8)}, {"x": torch.randn(2, 3), "labels": torch.zeros(2)}]
    assert data_features(batches)["data_size"] == pytest.approx(math.log2(3))
    ragged = [(torch.randn(8, 5), torch.zeros(8)), (torch.randn(8, 7), torch.zeros(8))]
    assert data_features(ragged)["data_size"] == pytest.approx(math.log2(5))


@pytest.mark.parametrize(
    ("optimizer", "adaptive", "momentum", "decay"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0, 0, -8),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4), 0, 0.9, -4),
        (lambda p: torch.optim.AdamW(p, lr=0.1), 1, 0.9, -2),
        (lambda p: torch.optim.RMSprop(p, lr=0.1), 1, 0, -8),
    ],
)
def test_optimizers_are_told_apart(optimizer: object, adaptive: float, momentum: float, decay: float) -> None:
    found = training_features(optimizer(mlp().parameters()), 0.1)
    assert found == {
        "train_adaptive": adaptive,
        "train_momentum": momentum,
        "train_decay": pytest.approx(decay),
        "train_lr": pytest.approx(-1),
    }
    assert "train_lr" not in training_features(optimizer(mlp().parameters()), None)
