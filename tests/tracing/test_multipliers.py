"""What multiplies a weight at use: constants belong into its fill, what scales noise is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO

import autoinit
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.tracing import read_graph

X, Y = torch.randn(64, 6), torch.randint(0, 3, (64,))
MASK = (torch.arange(24).reshape(4, 6) % 3 == 0).float()


def read(use: Callable[[nn.ParameterDict], Tensor]) -> autoinit.Graph:
    shapes = {"w": (4, 6), "v": (4, 6), "one": (1,)}
    model = nn.ParameterDict({name: nn.Parameter(torch.rand(shape)) for name, shape in shapes.items()})
    return read_graph(model, lambda: use(model).tanh().sum())


@pytest.mark.parametrize(
    ("use", "size"),
    [
        (lambda m: F.linear(X, m["w"]), 1.0),
        (lambda m: F.linear(X, m["w"] * 0.25), 0.25),
        (lambda m: X @ (0.25 * m["w"]).T, 0.25),
        (lambda m: X @ m["w"].T.div(4), 0.25),
        (lambda m: F.linear(X, torch.mul(-m["w"], torch.tensor(0.5)) * 0.5), 0.25),
        (lambda m: F.linear(X, m["w"] * MASK), math.sqrt(1 / 3)),
        (lambda m: F.linear(X, m["w"] * torch.tensor([[1.0], [2.0], [2.0], [4.0]])), 2.5),
        (lambda m: F.linear(X, m["w"] * 0.0), 1.0),
        (lambda m: F.linear(X, F.dropout(m["w"] * 0.5, 0.3)), 0.5),
        (lambda m: F.linear(X, m["w"] * torch.rand_like(m["w"]).gt(0.3)), 1.0),
        (lambda m: F.linear(X, m["w"] * (1 + 0.1 * torch.randn_like(m["w"]))), 1.0),
    ],
)
def test_the_constant_that_multiplies_a_weight_is_read(use: Callable[[nn.ParameterDict], Tensor], size: float) -> None:
    layer = read(use)["w"]
    assert layer.multiplier == pytest.approx(size, rel=1e-5)
    assert layer.role == "output"
    assert not layer.keep


@pytest.mark.parametrize(
    ("spread", "use"),
    [
        ("v", lambda m: F.linear(X, m["w"] + F.softplus(m["v"]) * torch.randn_like(m["w"]))),
        ("v", lambda m: F.linear(X, m["w"] + m["v"] * torch.empty_like(m["w"]).normal_())),
        ("v", lambda m: F.linear(X, torch.addcmul(m["w"], m["v"], torch.randn(4, 6)))),
        ("v", lambda m: F.linear(X, torch.distributions.Normal(m["w"], m["v"]).rsample())),
        ("v", lambda m: F.linear(X, m["w"] + m["v"] * (2 * torch.rand_like(m["w"]) - 1))),
        ("v", lambda m: F.linear(X, m["w"]) + F.linear(X, m["v"] * torch.randn(4, 6)) * torch.randn(64, 4).sign()),
        ("v", lambda m: F.linear(X, m["w"] + m["v"] * torch.outer(*(torch.randn(n).sign() for n in (4, 6))))),
        ("one", lambda m: F.linear(X, m["w"] + m["one"] * torch.randn_like(m["w"]))),
        ("one", lambda m: F.linear(X, m["w"]) + m["one"].exp() * torch.randn(64, 4)),
    ],
)
def test_what_scales_noise_is_kept_and_what_it_is_added_to_is_not(
    spread: str, use: Callable[[nn.ParameterDict], Tensor]
) -> None:
    graph = read(use)
    assert graph[spread].keep == "it scales noise; how much of it there is, is its owner's choice"
    assert not graph[spread].is_matrix
    assert (graph["w"].role, graph["w"].fan_in, graph["w"].keep) == ("output", 6, "")


@pytest.mark.parametrize(
    ("use", "function"),
    [
        (lambda m: F.linear(X, F.softplus(m["w"])), "softplus"),
        (lambda m: (F.linear(X**2, m["w"].exp() ** 2) + 1e-6).sqrt() * torch.randn(64, 4), "exp, pow"),
        (lambda m: F.linear(X, m["v"], F.softplus(m["w"])[:, 0]), "softplus"),
    ],
)
def test_what_acts_through_a_function_is_kept(use: Callable[[nn.ParameterDict], Tensor], function: str) -> None:
    assert f"a function ({function}) before they act" in read(use)["w"].keep


def outputs_std(model: nn.Module, x: Tensor) -> list[float]:
    """The standard deviation of the output of each layer with weights."""
    found = []
    for layer in model.children():
        x = layer(x)
        if list(layer.parameters()):
            found.append(x.std().item())
    return found


class Multiplied(nn.Module):
    """A linear layer whose weight and bias are multiplied at use."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(before, after)), nn.Parameter(torch.zeros(after))
        self.register_buffer("size", torch.tensor(0.02))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias * 3.0, x, self.weight * self.size)


@pytest.mark.parametrize("name", ["he_normal", "orthogonal", "lsuv", "lecun_uniform"])
def test_outputs_keep_their_size_whatever_multiplies_the_weights(name: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(256, 64), torch.randint(0, 64, (256,))
    wide = [64, 256, 256, 64]
    layers = [part for at in range(3) for part in (Multiplied(*wide[at : at + 2]), nn.Tanh())]
    model, plain = nn.Sequential(*layers[:-1]), nn.Sequential()
    for layer in layers[:-1]:
        plain.append(nn.Linear(*layer.weight.shape) if isinstance(layer, Multiplied) else layer)
    plan = autoinit.apply_(model, name, (x, y))
    autoinit.apply_(plain, name, (x, y))
    assert outputs_std(model, x) == pytest.approx(outputs_std(plain, x), rel=0.1)
    assert "÷ 0.02 (the constant that multiplies it)" in plan["2.weight"].reason


def test_a_label_prior_counts_the_constant_of_its_bias() -> None:
    model = nn.Sequential(Multiplied(6, 8), nn.Tanh(), Multiplied(8, 3))
    autoinit.apply_(model, "label_prior", (X, Y))
    frequencies = torch.bincount(Y, minlength=3) / len(Y)
    torch.testing.assert_close(3.0 * model[2].bias, frequencies.log())


@pytest.mark.parametrize("name", ["he_normal", "orthogonal", "lsuv"])
def test_a_bayesian_network_keeps_its_spread_and_gets_its_means(name: str) -> None:
    case = ZOO["bayesian_mlp"]()
    before = {key: value.clone() for key, value in case.model.state_dict().items()}
    autoinit.apply_(case.model, name, case.batch)
    for key, value in case.model.state_dict().items():
        same = torch.equal(value, before[key])
        assert same == ("spread" in key or "bias" in key), key


def test_a_zero_head_stays_zero_whatever_multiplies_it() -> None:
    model = nn.Sequential(Multiplied(6, 8), nn.Tanh(), Multiplied(8, 3))
    plan = autoinit.apply_(model, Recipe(base="he_normal", head="zero"), (X, Y))
    assert not model[2].weight.any()
    assert "÷" not in plan["2.weight"].reason
