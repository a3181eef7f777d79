"""Elementwise activations as data: φ on numpy arrays, and the gain that follows from it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRID: Array = np.linspace(-8.0, 8.0, 257)
"""Where an activation without a name is tabulated."""

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _softplus(x: Array, beta: float = 1.0) -> Array:
    return np.asarray(np.logaddexp(0.0, beta * x) / beta)


FORMULAS: dict[str, Callable[..., Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, slope=0.01: np.where(x > 0, x, slope * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "elu": _elu,
    "celu": lambda x, alpha=1.0: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "selu": lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "hardtanh": lambda x, low=-1.0, high=1.0: np.clip(x, low, high),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sin": lambda x, omega=1.0: np.sin(omega * x),
    "erf": _erf,
    "logsigmoid": lambda x: -_softplus(-x),
    "tanhshrink": lambda x: x - np.tanh(x),
}
"""φ(x, *parameters) for every activation that has a name."""


@functools.cache
def _normal_quadrature() -> tuple[Array, Array]:
    """Returns nodes and weights of E over N(0, 1): the trapezoidal rule.

    For smooth φ it converges as fast as Gauss–Hermite; at kinks, where Gauss–Hermite with 96 nodes is off by
    0.4 % (hardtanh), this grid is exact to 1e-6.
    """
    nodes = np.linspace(-12.0, 12.0, 24_001)
    density = np.exp(-0.5 * nodes**2)
    return nodes, density / density.sum()


@dataclass(frozen=True, slots=True)
class Activation:
    """An elementwise function φ.

    Attributes:
        name: a key of `FORMULAS`; "spike" for a spiking threshold (its step function is tabulated);
            "custom" for any other function, whose values on `GRID` are in `table`.
        parameters: what the formula takes after x: a negative slope, α, ω.
        table: φ(GRID), only where the name has no formula.
    """

    name: str = "linear"
    parameters: tuple[float, ...] = ()
    table: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """Returns φ(x), elementwise; a tabulated φ is interpolated, and held constant outside."""
        if self.table:
            return np.asarray(np.interp(x, GRID, np.asarray(self.table)), dtype=np.float64)
        formula = FORMULAS[self.name]
        return formula(np.asarray(x, dtype=np.float64), *self.parameters)

    def slope(self, x: Array) -> Array:
        """Returns φ'(x) by a central difference."""
        step = 1e-4 if not self.table else float(GRID[1] - GRID[0])
        return np.asarray((self(x + step) - self(x - step)) / (2 * step))

    def gain(self) -> float:
        """Returns 1/√E[φ(z)²] for z ~ N(0, 1), by quadrature (1 where φ is 0).

        With weights of variance gain²/fan_in the second moment of the units stays 1 from layer to
        layer (He et al. 2015, arXiv:1502.01852, for any φ): √2 for ReLU, 1.593 for tanh.
        """
        return _gain(self)

    def critical_gain(self) -> float:
        """Returns the gain σ_w at which gradients neither vanish nor explode with depth, without biases.

        The variance q of the preactivations has settled at q = σ_w²·E[φ(√q·z)²], and there
        χ = σ_w²·E[φ'(√q·z)²] is 1, for z ~ N(0, 1): √2 for ReLU, 1 for tanh, about 10 for the sigmoid, whose
        units share a mean. Where no gain gives 1, the plain gain is returned.
        Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232.
        """
        return _critical_gain(self)

    def __str__(self) -> str:
        inside = ", ".join(f"{value:g}" for value in self.parameters)
        return f"{self.name}({inside})" if inside else self.name


@functools.lru_cache(maxsize=512)
def _gain(activation: Activation) -> float:
    nodes, weights = _normal_quadrature()
    moment = float(np.dot(weights, activation(nodes) ** 2))
    return 1.0 / math.sqrt(moment) if moment > 1e-12 else 1.0


@functools.lru_cache(maxsize=512)
def _critical_gain(activation: Activation) -> float:
    low, high = 0.05, 32.0
    if not _chi(activation, low) < 1 < _chi(activation, high):
        return activation.gain()
    for _ in range(25):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _chi(activation, middle) < 1 else (low, middle)
    return high


def _chi(activation: Activation, sigma: float) -> float:
    """Returns σ_w²·E[φ'(√q·z)²] at the variance q that forty layers of this gain reach from 1."""
    nodes = np.linspace(-6.0, 6.0, 601)
    weights = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    q = 1.0
    for _ in range(40):
        q = min(1e4, sigma**2 * float(weights @ activation(math.sqrt(q) * nodes) ** 2))
    return sigma**2 * float(weights @ activation.slope(math.sqrt(q) * nodes) ** 2)


LINEAR = Activation()
