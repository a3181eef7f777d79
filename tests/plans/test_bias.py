from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from graphs import TANH, bias, linear, lstm, mlp, modulated, transformer
from once import mnist
from torch import Tensor, nn

import autoinit
from autoinit.graph import Graph
from autoinit.plans.bias import SMALLEST_FREQUENCY
from autoinit.plans.bias import bias as rule
from autoinit.plans.fill import Fill
from autoinit.recipes.recipe import Recipe


def filled(name: str, graph: Graph, **recipe: Any) -> Fill:
    return rule(graph[name], Recipe(**recipe), graph)


def gru(graph: Graph | None = None) -> Graph:
    """The biases of one GRU layer of 6 units."""
    inner: dict[str, Any] = {"kind": "recurrent", "cell": "gru", "slices": 3}
    layers = (
        linear("weight_ih", 18, 3, role="recurrent_input", **inner),
        linear("weight_hh", 18, 6, role="recurrent", **inner),
        bias("bias_ih", "weight_ih", 18, cell="gru", slices=3),
        bias("bias_hh", "weight_hh", 18, cell="gru", slices=3),
    )
    return Graph(layers, sequence_length=12)


# Ordinary biases


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ({}, ()),
        ({"base": "he_normal"}, (0.0,)),
        ({"bias": "zero"}, (0.0,)),
        ({"base": "edge_of_chaos", "bias": "zero"}, (0.0,)),
    ],
)
def test_biases_are_kept_as_is_and_zero_under_a_scheme(recipe: dict[str, Any], values: tuple[float, ...]) -> None:
    fill = filled("1.bias", mlp(TANH), **recipe)
    assert fill.values == values
    assert fill.untouched is (values == ())


def test_critical_biases_are_drawn_with_their_weight_s_point() -> None:
    point = TANH.edge_of_chaos()
    assert point is not None
    assert point.sigma_b > 0
    fill = filled("1.bias", mlp(TANH), base="edge_of_chaos")
    assert (fill.distribution, fill.std) == ("normal", pytest.approx(point.sigma_b))
    assert filled("3.bias", mlp(TANH), base="edge_of_chaos", rules=(("output", "zeros"),)).values == (0.0,)


def test_a_folded_weight_takes_its_bias_along() -> None:
    graph = transformer(post_norm=True)
    extra = bias("block.0.out.bias", "block.0.out.weight", 16)
    graph = dataclasses.replace(graph, layers=(*graph.layers, extra))
    folded = filled("block.0.out.bias", graph, depth_rule="deepnorm")
    assert (folded.distribution, folded.factor) == ("keep", pytest.approx(4**-0.25))
    assert "folded with its weight" in folded.reason
    assert filled("block.0.out.bias", graph, depth_rule="t_fixup").untouched


def test_the_bias_of_a_zeroed_branch_is_zero() -> None:
    graph = transformer()
    extra = bias("block.0.out.bias", "block.0.out.weight", 16)
    graph = dataclasses.replace(graph, layers=(*graph.layers, extra))
    assert filled("block.0.out.bias", graph, residual_out="zero").values == (0.0,)
    assert filled("block.0.out.bias", graph, residual_out="scaled").untouched


def test_what_belongs_to_kept_weights_and_gates_is_kept() -> None:
    gate = linear("gate", 8, 8, role="gate")
    kept = linear("kept", 8, 8, keep="frozen")
    graph = Graph((gate, kept, bias("gate.bias", "gate", 8), bias("kept.bias", "kept", 8)))
    assert filled("gate.bias", graph, base="he_normal").untouched
    assert filled("kept.bias", graph, base="he_normal").reason == "its weight is kept: frozen"


# The output


def test_label_prior_is_the_log_of_each_frequency() -> None:
    fill = filled("3.bias", mlp(), head_bias="label_prior")
    assert fill.values == pytest.approx((math.log(0.9), math.log(0.1), *[math.log(SMALLEST_FREQUENCY)] * 8))
    assert filled("0.bias", mlp(), head_bias="label_prior").untouched
    assert filled("3.bias", mlp(), head_bias="zero").values == (0.0,)
    assert filled("3.bias", mlp(), base="he_normal").values == (0.0,)


def test_training_starts_at_the_entropy_of_unbalanced_digits() -> None:
    images, labels = mnist()
    rows = np.flatnonzero((labels == 0) | (labels == 1) & (np.arange(len(labels)) % 9 == 0))
    x, y = torch.tensor(images[rows], dtype=torch.float32) / 255, torch.tensor(labels[rows])
    model, plain = (nn.Sequential(nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, 2)) for _ in range(2))
    autoinit.apply_(model, Recipe(base="he_normal", head="zero", head_bias="label_prior"), (x, y))
    p = (y == 1).double().mean().item()
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert entropy < 0.6 * math.log(2)
    # Labels are counted in whole batches: rows that fill none are left out.
    assert nn.functional.cross_entropy(model(x), y).item() == pytest.approx(entropy, rel=1e-3)
    autoinit.apply_(plain, Recipe(base="he_normal", head="zero"), (x, y))
    assert nn.functional.cross_entropy(plain(x), y).item() == pytest.approx(math.log(2), rel=1e-5)


# Gates


def test_one_of_two_biases_carries_the_forget_gate() -> None:
    assert filled("bias_ih", lstm(), recurrent="orthogonal_forget").values == (0.0, 1.0, 0.0, 0.0)
    assert filled("bias_hh", lstm(), recurrent="orthogonal_forget").values == (0.0, 0.0, 0.0, 0.0)
    assert filled("bias_ih", gru(), recurrent="orthogonal_forget").untouched  # a GRU has no forget gate


@pytest.mark.parametrize("graph", [lstm(), gru()], ids=["lstm", "gru"])
def test_one_of_two_biases_carries_chrono(graph: Graph) -> None:
    fill = filled("bias_ih", graph, recurrent="chrono")
    assert (fill.distribution, fill.values) == ("chrono", (12.0,))
    assert "log U(1, 11)" in fill.reason
    assert filled("bias_hh", graph, recurrent="chrono").values == (0.0,)
    assert filled("head", Graph((bias("head", "w", 2),)), recurrent="chrono").untouched


@pytest.mark.parametrize("steps", [None, 1, 2])
@pytest.mark.parametrize("name", ["bias_ih", "bias_hh"])
def test_chrono_says_nothing_of_sequences_without_time_scales(name: str, steps: int | None) -> None:
    graph = dataclasses.replace(lstm(), sequence_length=steps)
    assert filled(name, graph, recurrent="chrono").untouched


def gates(cell: nn.Module) -> Iterator[Tensor]:
    """The sum of both biases, by gate."""
    slices = 4 if isinstance(cell, nn.LSTM) else 3
    yield from (cell.get_parameter("bias_ih_l0") + cell.get_parameter("bias_hh_l0")).detach().chunk(slices)


class Reader(nn.Module):
    """A recurrent cell over the rows of a digit, and a head."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(400, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_gates_of_a_real_cell_are_spread_over_its_sequence(cell: type[nn.LSTM | nn.GRU]) -> None:
    model = Reader(cell(28, 400, batch_first=True))
    autoinit.apply_(model, "chrono", torch.randn(2, 28, 28))
    first, second, *rest = gates(model.cell)
    times = second.exp()
    assert 1.0 <= times.min() < 2.0
    assert 26.0 < times.max() <= 27.0
    # The mean of 400 uniform times on (1, 27) lies within 5·26/√(12·400) = 1.9 of 14.
    assert times.mean().item() == pytest.approx(14.0, abs=1.9)
    if cell is nn.LSTM:
        torch.testing.assert_close(first, -second)
    else:
        assert not first.any()
    assert not any(bool(part.any()) for part in rest)


def test_biases_of_what_modulates_start_at_zero_with_it() -> None:
    plan = autoinit.resolve(Recipe(modulation="zero"), modulated())
    assert (plan["film.weight"].values, plan["film.bias"].values) == ((0.0,), (0.0,))
    assert plan["time.weight"].std == 0.02
    assert plan["time.bias"].untouched
    assert plan["stem.weight"].untouched
