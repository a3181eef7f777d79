"""The function after a weight, recognized however it is written."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoinit.activations import FORMULAS, GRID, Activation
from autoinit.graph import Graph
from autoinit.tracing.responses import name_of
from autoinit.tracing.tracing import read_graph


class Net(nn.Module):
    def __init__(self, phi: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.phi, self.first, self.last = phi, nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.phi(self.first(x)))


def read(phi: Callable[[Tensor], Tensor], device: str = "cpu") -> Graph:
    net = Net(phi).to(device)
    if isinstance(phi, nn.Module):
        phi.to(device)
    x = torch.randn(5, 3, device=device)
    return read_graph(net, lambda: net(x).sum())


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, threshold=0.0):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        ctx.threshold = threshold
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient, None


PHI: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "relu": (torch.relu, "relu"),
    "in-place relu": (lambda x: F.relu(x, inplace=True), "relu"),
    "relu_": (lambda x: x.relu_(), "relu"),
    "clamp": (lambda x: x.clamp(min=0), "relu"),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
    "where": (lambda x: torch.where(x > 0, x, 0.2 * x), "leaky_relu(0.2)"),
    "leaky": (lambda x: F.leaky_relu(x, 0.3), "leaky_relu(0.3)"),
    "default leaky": (F.leaky_relu, "leaky_relu"),
    "relu squared": (lambda x: F.relu(x) ** 2, "relu2"),
    "relu squared by square": (lambda x: torch.square(torch.relu(x)), "relu2"),
    "relu6": (F.relu6, "relu6"),
    "elu": (lambda x: F.elu(x, 0.5), "elu(0.5)"),
    "celu": (lambda x: F.celu(x, 2.0), "celu(2)"),
    "selu": (F.selu, "selu"),
    "gelu": (F.gelu, "gelu"),
    "gelu by hand": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "gelu"),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
    "tanh gelu by hand": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "gelu_tanh",
    ),
    "constant made on the fly": (
        lambda x: 0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2 / math.pi)) * (x + 0.044715 * x**3))),
        "gelu_tanh",
    ),
    "silu": (F.silu, "silu"),
    "silu by hand": (lambda x: x * x.sigmoid(), "silu"),
    "silu by division": (lambda x: x / (1 + torch.exp(-x)), "silu"),
    "mish": (F.mish, "mish"),
    "mish by hand": (lambda x: x * F.softplus(x).tanh(), "mish"),
    "softplus": (lambda x: F.softplus(x, 2.0), "softplus(2)"),
    "softsign": (F.softsign, "softsign"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "hardtanh": (lambda x: F.hardtanh(x, -2, 3), "hardtanh(-2, 3)"),
    "hardsigmoid": (F.hardsigmoid, "hardsigmoid"),
    "hardswish": (F.hardswish, "hardswish"),
    "siren": (lambda x: torch.sin(30 * x), "sin(30)"),
    "tanhshrink": (F.tanhshrink, "tanhshrink"),
    "logsigmoid": (F.logsigmoid, "logsigmoid"),
    "erf": (torch.erf, "erf"),
    "scaled tanh": (lambda x: 1.7159 * torch.tanh(2 / 3 * x), "custom"),
    "prelu": (nn.PReLU(), "leaky_relu(0.25)"),
    "rrelu": (lambda x: F.rrelu(x, training=True), "leaky_relu(0.22917)"),
    "spike": (Heaviside.apply, "spike"),
    "affine": (lambda x: 3 * x + 1, "linear"),
    "scaled before": (lambda x: torch.tanh(1.0 * x), "tanh"),
    "dropout after": (lambda x: F.dropout(torch.tanh(x), 0.5), "tanh"),
    "no dropout after": (lambda x: F.dropout(F.gelu(x), 0.0), "gelu"),
    "norm between": (lambda x: torch.tanh(F.layer_norm(x, (4,))), "tanh"),
    "reshaped between": (lambda x: torch.tanh(x.view(-1, 2, 2).transpose(1, 2)).reshape(-1, 4), "tanh"),
    "cast between": (lambda x: torch.tanh(x.double()).float(), "tanh"),
    "residual add between": (lambda x: torch.tanh(x + x.flip(-1).detach()), "tanh"),
    "nothing": (lambda x: x, "linear"),
}


@pytest.mark.parametrize("name", PHI)
def test_functions_are_recognized(name: str) -> None:
    phi, expected = PHI[name]
    graph = read(phi)
    assert str(graph["first.weight"].activation) == expected
    assert str(graph["last.weight"].activation) == "linear"
    assert graph.notes == ()
    assert read(phi, "meta") == graph


@pytest.mark.parametrize(
    ("phi", "expected"),
    [
        (lambda x: F.relu(x, inplace=True), "relu"),
        (lambda x: F.leaky_relu(x, 0.2, inplace=True), "leaky_relu(0.2)"),
        (lambda x: F.hardtanh_(x, -2, 2), "hardtanh(-2, 2)"),
        (lambda x: F.silu(x, inplace=True), "silu"),
        (lambda x: x.tanh_(), "tanh"),
        (lambda x: x.mul_(30).sin_(), "sin(30)"),
        (lambda x: F.selu(x, inplace=True), "selu"),
    ],
)
def test_functions_that_write_into_a_view_are_recognized(phi: Callable[[Tensor], Tensor], expected: str) -> None:
    net = Net(phi)
    graph = read_graph(net, lambda: net(torch.randn(2, 5, 3)).sum())  # a linear layer's output of 3 axes is a view
    assert str(graph["first.weight"].activation) == expected


def test_a_function_without_a_name_is_tabulated() -> None:
    activation = read(lambda x: x * torch.sigmoid(1.702 * x))["first.weight"].activation
    assert activation.name == "custom"
    np.testing.assert_allclose(activation.table, GRID / (1 + np.exp(-1.702 * GRID)), atol=1e-5)


def test_a_threshold_is_tabulated() -> None:
    activation = read(lambda x: Heaviside.apply(x, 1.0))["first.weight"].activation
    assert activation.name == "spike"
    np.testing.assert_array_equal(activation.table, (GRID > 1.0).astype(float))


def test_what_cannot_be_replayed_is_noted() -> None:
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, table):  # type: ignore[no-untyped-def]
            return x * table["scale"]

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return gradient, None

    graph = read(lambda x: Odd.apply(x, {"scale": 2.0}))
    assert str(graph["first.weight"].activation) == "linear"
    assert "could not be read" in graph.notes[0]


@pytest.mark.parametrize("name", [name for name in FORMULAS if name != "linear"])
def test_every_formula_is_named(name: str) -> None:
    phi = FORMULAS[name]
    found = name_of(phi(GRID), float(phi(np.array([1e-5]))[0]))
    np.testing.assert_allclose(found(GRID), phi(GRID), atol=1e-4)
    assert found == Activation("elu" if name == "celu" else name)  # they are one function where α is 1


ADJACENCY = torch.eye(5) + torch.diag(torch.ones(4), 1)


class Weighed(nn.Module):
    """Values that are added up with shares which a leaky ReLU of scores decides, and then bent."""

    def __init__(self, scores: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.scores, self.first, self.last = scores, nn.Linear(3, 4, bias=False), nn.Linear(4, 2)
        self.one, self.two = nn.Linear(4, 1), nn.Linear(4, 1)
        self.vector = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.last(torch.tanh(self.scores(self, z) @ z))


def by_hand(scores: Tensor) -> Tensor:
    above = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    return above / above.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "scores",
    [
        lambda m, z: F.leaky_relu(m.one(z) + m.two(z).mT, 0.2).softmax(-1),
        lambda m, z: F.leaky_relu(m.one(z) + m.two(z).mT, 0.2).masked_fill(ADJACENCY == 0, -1e9).softmax(-1),
        lambda m, z: (F.leaky_relu(z[:, None] + z[None], 0.2) * m.vector).sum(-1).softmax(-1),
        lambda m, z: by_hand((F.relu(z[:, None] + z[None]) * m.vector).sum(-1)),
        lambda m, z: F.dropout(by_hand(F.leaky_relu((z * m.vector).sum(-1) + m.one(z))), 0.3),
        lambda m, z: ADJACENCY / ADJACENCY.sum(-1, keepdim=True),
        lambda m, z: ADJACENCY.to_sparse(),
    ],
)
def test_the_activation_is_that_on_the_way_of_values_and_not_of_scores(
    scores: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    model = Weighed(scores)
    layer = read_graph(model, lambda: model(torch.randn(5, 3)).sum())["first.weight"]
    assert layer.activation == Activation("tanh")
    assert layer.mixed


def test_what_only_scores_has_the_activation_of_scores() -> None:
    class Additive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.score, self.last = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            shares = self.score(torch.sigmoid(self.query(x))).softmax(0)
            return self.last(torch.relu((shares * x).sum(0)))

    model = Additive()
    graph = read_graph(model, lambda: model(torch.randn(5, 3)).sum())
    assert graph["query.weight"].activation == Activation("sigmoid")
    assert not graph["query.weight"].mixed
    assert not read(torch.relu)["first.weight"].mixed


class Preactivated(nn.Module):
    """Blocks that normalize and bend what they take; those that change its width project the skip."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.stem, self.head = nn.Linear(3, widths[0]), nn.Linear(widths[-1], 2)
        self.up = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.down = nn.ModuleList(nn.Linear(after, after) for _, after in pairs)
        self.skip = nn.ModuleList(nn.Linear(*pair) if pair[0] != pair[1] else nn.Identity() for pair in pairs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down, skip in zip(self.up, self.down, self.skip, strict=True):
            inner = down(F.silu(up(F.silu(F.layer_norm(x, x.shape[-1:])))))
            x = skip(x) + inner
        return self.head(F.silu(x))


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 6, 8, 5)])
def test_a_projection_of_the_skip_hides_no_function_of_the_branch(widths: tuple[int, ...]) -> None:
    model = Preactivated(*widths)
    graph = read_graph(model, lambda: model(torch.randn(5, 3)).sum())
    assert {str(layer.activation) for layer in graph.weights if layer.role != "output"} == {"silu"}


def test_what_is_used_first_is_the_next_weight() -> None:
    class Beside(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x) + F.linear(torch.relu(F.layer_norm(x, (4,))), 2 * self.last.weight)

    model = Beside(torch.relu)
    graph = read_graph(model, lambda: model(torch.randn(5, 3)).sum())
    assert str(graph["first.weight"].activation) == "linear"
