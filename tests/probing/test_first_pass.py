"""What one pass of the owner's weights tells, beside the same in plain autograd; and that nothing of it stays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoinit.graph import Graph
from autoinit.knowledge.features import FEATURES
from autoinit.probing.first_pass import pass_features
from autoinit.task.task import Task, example_task
from autoinit.tracing.tracing import trace_task


def made(
    model: nn.Module, rows: int = 32, step: Callable[[nn.Module, Tensor], Tensor] | None = None
) -> tuple[Task, Graph]:
    torch.manual_seed(1)
    data = (torch.randn(rows, 8), torch.randint(0, 3, (rows,)))
    task = example_task(model, [data], step=step)
    return task, trace_task(task)


def plain(*extra: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), *extra, nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))


def test_it_is_what_plain_autograd_says() -> None:
    model = plain()
    task, graph = made(model)
    found = pass_features(task, graph, {"data_reference": math.log(math.log(3))})
    assert set(found) == {name for name in FEATURES if name.startswith("pass_")}
    x, labels = task.train[0]
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(x), labels)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    square = sum(one.pow(2).sum() for one in gradients)
    along = torch.autograd.grad(square, parameters)  # 2·Hg
    bent = sum((one * other).sum() for one, other in zip(gradients, along, strict=True)) / 2 / square
    assert found["pass_loss"] == pytest.approx(float(loss.detach().log()) - math.log(math.log(3)), abs=1e-5)
    assert found["pass_gradient"] == pytest.approx(float(square.detach().log10()) / 2, abs=1e-5)
    assert found["pass_curvature"] == pytest.approx(math.asinh(float(bent.detach())), rel=0.02)
    norms = [float(one.norm().detach()) for one, layer in zip(gradients, parameters, strict=True) if layer.dim() == 2]
    assert found["pass_range"] == pytest.approx(math.log10(max(norms) / min(norms)), abs=1e-5)
    assert found["pass_output"] == pytest.approx(float(model(x).std().detach().log2()), abs=1e-4)
    assert (found["pass_dead"], found["pass_saturated"]) == (0, pytest.approx(0, abs=0.05))


@pytest.mark.parametrize(
    "extra", [(), (nn.BatchNorm1d(16),), (nn.Dropout(0.5),)], ids=["plain", "batch norm", "dropout"]
)
def test_model_buffers_gradients_modes_and_random_states_stay(extra: tuple[nn.Module, ...]) -> None:
    model = plain(*extra).eval()
    task, graph = made(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    kept = {name: parameter.grad for name, parameter in model.named_parameters()}
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first = pass_features(task, graph, {})
    assert torch.equal(random, torch.get_rng_state())
    torch.manual_seed(7)
    assert pass_features(task, graph, {}) == first
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    for name, parameter in model.named_parameters():
        assert parameter.grad is kept[name]
        assert torch.equal(parameter.grad, torch.ones_like(parameter))
    assert not model.training


def test_what_fails_leaves_its_numbers_unknown_and_the_model_as_it_was() -> None:
    calls: list[int] = []

    class Fails(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            calls.append(len(input))
            if len(calls) > 1:
                raise RuntimeError("no more")
            return super().forward(input)

    model = nn.Sequential(Fails(8, 3))
    task, graph = made(model)
    calls.clear()
    before = copy.deepcopy(model.state_dict())
    found = pass_features(task, graph, {})
    assert set(found) == {"pass_gradient", "pass_output"}  # of the only pass; the halves and the way on failed
    assert pass_features(task, graph, {}) == {}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_large_model_is_passed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    model = plain()
    task, graph = made(model)
    model.register_forward_hook(lambda *_: calls.append(1))
    whole = pass_features(task, graph, {})
    assert len(calls) == 4  # the batch, its halves, and the batch a little way on
    monkeypatch.setattr("autoinit.probing.first_pass.LARGE", 100)
    calls.clear()
    once = pass_features(task, graph, {})
    assert len(calls) == 1
    assert once == {name: whole[name] for name in whole if name not in ("pass_agreement", "pass_curvature")}


def test_a_single_row_under_batch_normalization_is_not_passed() -> None:
    task, graph = made(plain(nn.BatchNorm1d(16)), rows=2)
    x, labels = task.train[0]
    alone = example_task(task.model, [(x[:1], labels[:1])])
    assert pass_features(alone, graph, {}) == {}


def test_nothing_is_found_out_on_the_meta_device() -> None:
    task, graph = made(plain())
    assert pass_features(example_task(plain().to("meta"), [task.train[0]]), graph, {}) == {}
