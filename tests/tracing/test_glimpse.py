"""A task seen at a glance agrees with the task that a search makes."""

from __future__ import annotations

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autoinit.errors import DataError, ModelError
from autoinit.task.features import task_features
from autoinit.task.task import make_task
from autoinit.tracing.glimpse import glimpse, weightless
from autoinit.tracing.tracing import trace_task


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = load_digits(return_X_y=True)
    return torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 10))


class Asking(nn.Module):
    """Asks for a value, which a model without weights does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * (2.0 if float(x.sum()) > 1e9 else 1.0)


@pytest.mark.parametrize("make", [mlp, Asking])
def test_it_sees_what_a_search_would_see(make: type[nn.Module]) -> None:
    model = make()
    seen = glimpse(model, digits())
    task = make_task(model, digits(), optimizer=torch.optim.SGD, lr=0.1)
    graph = trace_task(task)
    assert [layer.role for layer in seen.graph.layers] == [layer.role for layer in graph.layers]
    assert seen.graph.residual_adds == graph.residual_adds
    whole = task_features(task, graph)
    for name, value in seen.data.items():
        assert value == pytest.approx(whole[name], abs=0.15), name
    assert {name for name in whole if name.startswith("data_")} == set(seen.data)


@pytest.mark.parametrize("make", [mlp, Asking])
def test_model_and_random_states_are_left_as_they_were(make: type[nn.Module]) -> None:
    model = make().train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    glimpse(model, DataLoader(TensorDataset(*digits()), batch_size=32, shuffle=True))
    glimpse(model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_weightless_copy_takes_no_memory_and_keeps_ties() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    copied = weightless(model)
    assert all(parameter.is_meta for parameter in copied.parameters())
    assert copied[1].weight is copied[0].weight
    assert not model[0].weight.is_meta


def test_without_data_the_modules_are_read() -> None:
    seen = glimpse(mlp())
    assert seen.graph.source == "modules"
    assert seen.data == {}


def test_frames_loaders_and_iterators_are_data_too() -> None:
    rows, labels = digits()
    loader = DataLoader(TensorDataset(rows, labels), batch_size=64)
    for data in (loader, iter(loader), TensorDataset(rows, labels), (rows.numpy(), labels.numpy())):
        assert glimpse(mlp(), data).data["data_size"] == 6


def test_what_cannot_be_used_is_told() -> None:
    with pytest.raises(DataError, match=r"NaN|finite"):
        glimpse(mlp(), (torch.full((64, 64), float("nan")), torch.zeros(64, dtype=torch.long)))
    frozen = mlp().requires_grad_(False)
    with pytest.raises(ModelError):
        glimpse(frozen, digits())
    with pytest.raises(ModelError):
        glimpse(nn.Linear, digits())  # type: ignore[arg-type]
