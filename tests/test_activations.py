from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoinit.activations import FORMULAS, GRID, Activation

TORCH = {
    "linear": nn.Identity(),
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "relu6": F.relu6,
    "relu2": lambda x: F.relu(x) ** 2,
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "sin": torch.sin,
    "erf": torch.erf,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": F.tanhshrink,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_is_torch_s(name: str) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    assert np.allclose(Activation(name)(x.numpy()), TORCH[name](x).numpy(), atol=1e-9)


@pytest.mark.parametrize(
    ("activation", "torch_name", "parameter"),
    [
        (Activation("linear"), "linear", None),
        (Activation("relu"), "relu", None),
        (Activation("leaky_relu", (0.2,)), "leaky_relu", 0.2),
    ],
)
def test_gain_is_torch_s_where_torch_s_is_exact(
    activation: Activation, torch_name: str, parameter: float | None
) -> None:
    assert activation.gain() == pytest.approx(nn.init.calculate_gain(torch_name, parameter), rel=1e-9)


@pytest.mark.parametrize(("name", "gain"), [("tanh", 1.5925), ("sigmoid", 1.8462), ("selu", 1.0), ("gelu", 1.5335)])
def test_gain_where_torch_s_table_is_something_else(name: str, gain: float) -> None:
    assert Activation(name).gain() == pytest.approx(gain, abs=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_gain_is_that_of_a_million_samples(name: str) -> None:
    activation = Activation(name)
    squares = activation(np.random.default_rng(0).standard_normal(1_000_000)) ** 2
    # Five standard errors of the mean square, carried through 1/√m.
    tolerance = 5 * squares.std() / 1000 / squares.mean() / 2
    assert activation.gain() == pytest.approx(1 / math.sqrt(squares.mean()), rel=tolerance + 1e-4)


def test_a_table_stands_in_for_a_formula() -> None:
    tabulated = Activation("custom", table=tuple(np.tanh(GRID)))
    assert tabulated.gain() == pytest.approx(Activation("tanh").gain(), rel=1e-3)


def test_zero_function_has_gain_one() -> None:
    assert Activation("custom", table=tuple(np.zeros_like(GRID))).gain() == 1.0


def test_slope() -> None:
    assert Activation("tanh").slope(np.array([0.0, 5.0])) == pytest.approx([1.0, 1 - np.tanh(5.0) ** 2], abs=1e-7)


def test_text() -> None:
    assert str(Activation("sin", (30.0,))) == "sin(30)"
    assert str(Activation("relu")) == "relu"


@pytest.mark.parametrize(
    ("name", "critical"),
    [("relu", math.sqrt(2)), ("tanh", 1.0), ("linear", 1.0), ("leaky_relu", math.sqrt(2 / 1.0001))],
)
def test_critical_gain_where_theory_has_it(name: str, critical: float) -> None:
    assert Activation(name).critical_gain() == pytest.approx(critical, rel=0.05)


def test_sigmoid_needs_a_large_gain() -> None:
    assert 7 < Activation("sigmoid").critical_gain() < 11
