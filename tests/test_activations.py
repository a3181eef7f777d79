from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoinit.activations import FORMULAS, GRID, JACOBIAN_SPREAD, LARGEST_BIAS_SHARE, Activation, Array, Critical
from autoinit.errors import ArgumentError

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
    "softshrink": F.softshrink,
}
SMOOTH = (
    *("linear", "gelu", "gelu_tanh", "silu", "mish", "softplus", "tanh", "sigmoid", "sin", "erf"),
    *("logsigmoid", "tanhshrink"),
)


def hermite(function: Callable[[Array], Array], nodes: int = 180) -> float:
    """E[function(z)] for z ~ N(0, 1) by Gauss–Hermite quadrature."""
    z, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return float(weights @ function(z)) / math.sqrt(2 * math.pi)


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
    [("relu", math.sqrt(2)), ("linear", 1.0), ("leaky_relu", math.sqrt(2 / 1.0001))],
)
def test_critical_gain_where_theory_has_it(name: str, critical: float) -> None:
    assert Activation(name).critical_gain() == pytest.approx(critical, rel=1e-6)


def test_critical_gain_of_tanh() -> None:
    # It is 1 at depth ∞; at the forty layers that are counted q has fallen to 1/80 only, and σ_w² ≈ 1 + 2q there,
    # where the gain that keeps the second moment is 1.593.
    assert 1.0 < Activation("tanh").critical_gain() < 1.05


def test_sigmoid_needs_a_large_gain() -> None:
    assert 7 < Activation("sigmoid").critical_gain() < 11


def test_critical_gain_of_a_zero_function_is_its_gain() -> None:
    assert Activation("custom", table=tuple(np.zeros_like(GRID))).critical_gain() == 1.0


@pytest.mark.parametrize("name", SMOOTH)
def test_the_grid_agrees_with_gauss_hermite_for_smooth_functions(name: str) -> None:
    activation = Activation(name)
    assert activation.gain() == pytest.approx(hermite(lambda z: activation(z) ** 2) ** -0.5, rel=1e-8)


def test_the_grid_is_better_than_gauss_hermite_at_kinks() -> None:
    # E[clip(z)²] = E[z²; |z| < 1] + P(|z| > 1) = P(|z| < 1) − √(2/π)·e^(−1/2) + P(|z| > 1).
    exact = (1 - math.sqrt(2 / math.pi) * math.exp(-0.5)) ** -0.5
    activation = Activation("hardtanh")
    assert activation.gain() == pytest.approx(exact, rel=1e-6)
    assert abs(hermite(lambda z: activation(z) ** 2, nodes=96) ** -0.5 / exact - 1) > 1e-3


def test_relu_is_critical_at_every_variance() -> None:
    for q in (None, 0.01, 1.0, 30.0):
        point = Activation("relu").edge_of_chaos(q)
        assert point is not None
        assert (point.sigma_w, point.sigma_b, point.q) == pytest.approx((math.sqrt(2), 0.0, q or 1.0), abs=1e-6)


@pytest.mark.parametrize("q", [0.05, 0.5, 1.0, 3.0])
def test_erf_s_critical_line_in_closed_form(q: float) -> None:
    # φ'(x)² = (4/π)·exp(−2x²), so E = (4/π)/√(1 + 4q); E[erf(√q z)²] = (2/π)·arcsin(2q/(1 + 2q)) (Williams 1997).
    point = Activation("erf").edge_of_chaos(q)
    assert point is not None
    sigma_w2 = math.pi / 4 * math.sqrt(1 + 4 * q)
    sigma_b2 = q - sigma_w2 * 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    assert point.q == q
    assert point.sigma_w**2 == pytest.approx(sigma_w2, rel=1e-6)
    assert point.sigma_b**2 == pytest.approx(sigma_b2, rel=1e-4)


@pytest.mark.parametrize("q", [0.2, 1.0, 2.0])
def test_sine_s_critical_line_in_closed_form(q: float) -> None:
    # E[cos²(√q z)] = (1 + e^(−2q))/2 and E[sin²(√q z)] = (1 − e^(−2q))/2.
    point = Activation("sin").edge_of_chaos(q)
    assert point is not None
    assert point.sigma_w**2 == pytest.approx(2 / (1 + math.exp(-2 * q)), rel=1e-6)
    assert point.sigma_b**2 == pytest.approx(q - math.tanh(q), rel=1e-4)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_critical_point_keeps_variance_and_gradients(name: str) -> None:
    activation = Activation(name)
    point = activation.edge_of_chaos()
    if point is None:
        assert name in ("relu2", "softplus", "logsigmoid", "tanhshrink")
        return
    z = np.linspace(-10, 10, 200_001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    x = math.sqrt(point.q) * z
    # Kinks between two of the 10⁴ nodes a standard deviation are off by their jump × density × spacing: 1e-4.
    assert point.sigma_w**2 * weights @ activation.slope(x) ** 2 == pytest.approx(1, abs=3e-4)
    assert point.sigma_w**2 * weights @ activation(x) ** 2 + point.sigma_b**2 == pytest.approx(point.q, rel=3e-4)
    # A q that is a hundredth too large does not move away, to second order in that hundredth.
    off, on = (point.sigma_w**2 * weights @ activation(math.sqrt(c) * x) ** 2 for c in (1.01, 1.0))
    assert (off - on) / (0.01 * point.q) <= 1 + 0.01


@pytest.mark.parametrize("name", ["tanh", "erf", "hardtanh", "softsign", "sin"])
def test_biases_stay_small_where_units_saturate(name: str) -> None:
    point = Activation(name).edge_of_chaos()
    assert point is not None
    assert point.q < 1
    # The largest such q: the share is met, not only kept.
    assert point.sigma_b**2 / point.q == pytest.approx(LARGEST_BIAS_SHARE, rel=1e-4)


def test_a_frequency_only_rescales_the_critical_point() -> None:
    # φ(x) = sin(30x): x → x/30, so q → q/900, σ_w → σ_w/30, σ_b → σ_b/30.
    slow, fast = Activation("sin").edge_of_chaos(), Activation("sin", (30.0,)).edge_of_chaos()
    assert slow is not None
    assert fast is not None
    assert (fast.q * 900, fast.sigma_w * 30, fast.sigma_b * 30) == pytest.approx(
        (slow.q, slow.sigma_w, slow.sigma_b), rel=1e-3
    )


def test_where_biases_cannot_help_q_grows_until_none_are_needed() -> None:
    point = Activation("sigmoid").edge_of_chaos(1.0)
    assert point is not None
    assert point.q > 10
    assert point.sigma_b < 0.02
    assert point.sigma_w == pytest.approx(Activation("sigmoid").critical_gain(), rel=1e-3)


def test_gelu_is_critical_only_where_its_variance_is_stable() -> None:
    point = Activation("gelu").edge_of_chaos(0.1)
    assert point is not None
    assert point == Activation("gelu").edge_of_chaos(1.0)
    assert point.q == pytest.approx(3.56, abs=0.02)


def test_what_has_no_slope_has_no_critical_point() -> None:
    for activation in (
        Activation("spike", table=tuple(np.where(GRID > 0, 1.0, 0.0))),
        Activation("custom", table=tuple(np.zeros_like(GRID))),
    ):
        assert activation.edge_of_chaos() is None
        assert activation.isometry(2) is None


@pytest.mark.parametrize("q", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_that_is_none_is_refused(q: float) -> None:
    with pytest.raises(ArgumentError, match="variance q"):
        Activation("tanh").edge_of_chaos(q)


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_isometry_needs_a_variance_that_falls_with_the_root_of_the_depth(name: str) -> None:
    # To second order in q the spread is 8·q² for both, so that q = √(JACOBIAN_SPREAD/(8·depth)).
    for depth in (1_000, 100_000):
        point = Activation(name).isometry(depth)
        assert point is not None
        assert point.q == pytest.approx(math.sqrt(JACOBIAN_SPREAD / (8 * depth)), rel=0.05)


def test_isometry_of_erf_in_closed_form() -> None:
    # E[φ'⁴]/E[φ'²]² = (1 + 4q)/√(1 + 8q).
    point = Activation("erf").isometry(30)
    assert point is not None
    assert 30 * ((1 + 4 * point.q) / math.sqrt(1 + 8 * point.q) - 1) == pytest.approx(JACOBIAN_SPREAD, rel=1e-3)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "relu6", "selu", "sigmoid", "softplus"])
def test_no_isometry_with_a_kink_at_zero_or_a_mean(name: str) -> None:
    assert Activation(name).isometry(30) is None


def test_a_linear_network_is_an_isometry_at_any_depth() -> None:
    assert Activation().isometry(10_000) == Critical(pytest.approx(1.0, abs=1e-12), 0.0, 1.0)


def test_a_leaky_relu_that_is_nearly_linear_is_near_an_isometry_while_it_is_shallow() -> None:
    # Spread (1 + s⁴)/2 / ((1 + s²)/2)² − 1 = 0.011 at s = 0.9: up to 22 layers.
    assert Activation("leaky_relu", (0.9,)).isometry(22) is not None
    assert Activation("leaky_relu", (0.9,)).isometry(23) is None


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ArgumentError, match="depth"):
        Activation("tanh").isometry(0)


def test_the_first_layer_s_gain_gives_the_variance_at_once() -> None:
    assert Critical(1.3, 0.3, 0.5).sigma_in == pytest.approx(math.sqrt(0.5 - 0.09))


@pytest.mark.parametrize(
    ("activation", "slope"),
    [
        (Activation("relu"), 1.0),
        (Activation("leaky_relu", (0.2,)), 1.2),
        (Activation("gelu"), 1.0),
        (Activation("gelu_tanh"), 1.0),
        (Activation("silu"), 1.0),
        (Activation("hardswish"), 1.0),
        (Activation("softplus"), 1.0),
        (Activation("logsigmoid"), 1.0),
        (Activation("linear"), 2.0),
        (Activation("custom", table=tuple(np.maximum(GRID, 0))), 1.0),
    ],
    ids=str,
)
def test_mirrored_units_are_linear(activation: Activation, slope: float) -> None:
    assert activation.odd_slope() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid", "relu6", "relu2", "elu", "selu", "mish", "sin", "softsign"])
def test_mirrored_units_are_not_linear(name: str) -> None:
    assert Activation(name).odd_slope() is None


def test_an_even_function_cancels_and_has_no_odd_slope() -> None:
    assert Activation("custom", table=tuple(GRID**2)).odd_slope() is None
