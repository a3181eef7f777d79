"""Elementwise activations as data: φ on numpy arrays, and the gains and critical points that follow from it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError

Array = NDArray[np.float64]
"""Numbers in double precision, wherever the package computes without torch."""

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
    "softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
}
"""φ(x, *parameters) for every activation that has a name."""

LARGEST_BIAS_SHARE = 0.1
"""Of the variance of the preactivations, what random biases may make up where `edge_of_chaos` chooses q."""

JACOBIAN_SPREAD = 0.25
"""Variance of the squared singular values of the input–output Jacobian, about their mean 1, that `isometry` allows."""

_SLACK = 1e-6
"""Relative error of the quadrature, below which a variance counts as zero and a fixed point as settled."""


@functools.cache
def _normal_quadrature(nodes: int = 24_001) -> tuple[Array, Array]:
    """Returns nodes and weights of E over N(0, 1): the trapezoidal rule.

    For smooth φ it converges as fast as Gauss–Hermite; at kinks, where Gauss–Hermite with 96 nodes is off by
    0.4 % (hardtanh), this grid of 24,001 nodes is exact to 1e-6.
    """
    grid = np.linspace(-12.0, 12.0, nodes)
    density = np.exp(-0.5 * grid**2)
    return grid, density / density.sum()


@dataclass(frozen=True, slots=True)
class Critical:
    """A critical point: weights and biases for which gradients neither vanish nor explode with depth.

    Attributes:
        sigma_w: weights have variance sigma_w²/fan_in, or are sigma_w times an orthogonal matrix.
        sigma_b: standard deviation of the biases.
        q: the variance of the preactivations, which these two keep.
    """

    sigma_w: float
    sigma_b: float
    q: float

    @property
    def sigma_in(self) -> float:
        """What stands for sigma_w in the first layer: √(q − sigma_b²) on inputs of second moment 1 gives q at once.

        With sigma_w in its place q is only approached, near q = 0 as slowly as 1/depth.
        """
        return math.sqrt(max(0.0, self.q - self.sigma_b**2))


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

        `torch.nn.init.calculate_gain` has the same numbers for linear, ReLU and leaky ReLU. Its others are no such
        integral: tanh 5/3 (here 1.593), sigmoid 1 (here 1.846), SELU 3/4 (here 1, the fixed point that SELU is
        made for). Other activations it does not know.
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

    def edge_of_chaos(self, q: float | None = None) -> Critical | None:
        """Returns the critical point at which the preactivations have variance q; None where φ has none.

        There χ = σ_w²·E[φ'(√q·z)²] is 1 and q is kept: q = σ_w²·E[φ(√q·z)²] + σ_b², for z ~ N(0, 1). It takes part
        only where σ_b² is not negative and where q is stable, so that layers do not drift away from it:
        σ_w²·d E[φ(√q·z)²]/dq ≤ 1. Where the q asked for is neither, the smallest larger one is taken: a sigmoid needs
        q = 46, where σ_b = 0, GELU 3.6. Softplus, ReLU² and tanhshrink have no critical point; nor have steps.
        Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232.

        Args:
            q: variance of the preactivations. None: 1, the variance of normalized inputs, or less where the
                biases would make up more than a tenth of it and drown the input (tanh, erf, sines). For ReLU and
                leaky ReLU the point is (√(2/(1 + slope²)), 0) at every q.

        Raises:
            ArgumentError: q is no positive finite number.
        """
        if q is not None and not (math.isfinite(q) and q > 0):
            raise ArgumentError(f"A variance q must be a positive finite number. Got {q!r}.")
        return _edge_of_chaos(self, q)

    def isometry(self, depth: int) -> Critical | None:
        """Returns the critical point for orthogonal weights at which the Jacobian is near an isometry; None without.

        Over `depth` layers the squared singular values of the input–output Jacobian have mean 1 and variance
        depth·(E[φ'⁴]/E[φ'²]² − 1). The largest q up to 1 is taken at which that is no more than `JACOBIAN_SPREAD`:
        for tanh, where it is 8·depth·q², that is q = 0.18/√depth. ReLU has one value, depth, at every q, and
        so no isometry: that takes mirrored weights (see `odd_slope`).
        Pennington, Schoenholz & Ganguli 2017, arXiv:1711.04735.

        Args:
            depth: number of layers with this activation.

        Raises:
            ArgumentError: depth is less than 1.
        """
        if depth < 1:
            raise ArgumentError(f"A depth is at least 1. Got {depth!r}.")
        return _isometry(self, depth)

    def odd_slope(self) -> float | None:
        """Returns c where φ(x) − φ(−x) = c·x, so that mirrored units act as one linear unit; None where no c does.

        1 for ReLU, GELU, SiLU, hardswish and softplus, 1 + slope for leaky ReLU, 2 for the identity; tanh has none.
        Balduzzi et al. 2017, arXiv:1702.08591 (looks-linear initialization).
        """
        odd = self(GRID) - self(-GRID)
        slope = float((odd[-1] - odd[0]) / (GRID[-1] - GRID[0]))
        linear = np.allclose(odd, slope * GRID, rtol=0.0, atol=1e-5) and abs(slope) > 1e-3
        return round(slope, 9) if linear else None

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
    nodes = 1201
    grid, weights = _normal_quadrature(nodes)
    q = 1.0
    for _ in range(40):
        q = min(1e4, max(1e-12, sigma**2 * float(weights @ activation(math.sqrt(q) * grid) ** 2)))
    return sigma**2 * _moments(activation, q, nodes).slope2


@dataclass(frozen=True, slots=True)
class _Moments:
    """What a layer does to preactivations of variance q: E[φ²], q·dE[φ²]/dq, E[φ'²], E[φ'⁴]."""

    q: float
    square: float
    growth: float
    slope2: float
    slope4: float

    @property
    def is_steep(self) -> bool:
        """Whether it has slopes at all; a constant function and a step have none."""
        return self.slope2 * self.q > 1e-12 * (self.square + self.q)

    @property
    def bias(self) -> float:
        """σ_b²/q of the critical point: what biases add so that q is kept."""
        return 1 - self.square / (self.slope2 * self.q)

    @property
    def drift(self) -> float:
        """By what factor less 1 a deviation from q grows in a layer."""
        return self.growth / (self.slope2 * self.q) - 1

    @property
    def spread(self) -> float:
        """The variance of the squared slopes over their squared mean."""
        return self.slope4 / self.slope2**2 - 1

    def critical(self) -> Critical:
        """Returns the point, its biases exactly 0 where rounding alone makes them something else."""
        variance = self.q * self.bias if self.bias > 1e-12 else 0.0
        return Critical(self.slope2**-0.5, math.sqrt(variance), self.q)


def _moments(activation: Activation, q: float, nodes: int = 24_001) -> _Moments:
    """Returns the moments by quadrature; slopes are differences between neighbouring nodes, exact for a kink at 0."""
    grid, weights = _normal_quadrature(nodes)
    values = activation(math.sqrt(q) * grid)
    slopes = np.diff(values) / (math.sqrt(q) * np.diff(grid))
    middle = np.exp(-0.5 * (0.5 * (grid[1:] + grid[:-1])) ** 2)
    middle /= middle.sum()
    return _Moments(
        q,
        square=float(weights @ values**2),
        # By parts: d E[φ(√q·z)²]/dq = E[φ²·(z² − 1)]/(2q).
        growth=float(weights @ (values**2 * (grid**2 - 1))) / 2,
        slope2=float(middle @ slopes**2),
        slope4=float(middle @ slopes**4),
    )


def _exists(moments: _Moments, drift: float = 0.0) -> bool:
    """Whether there is a critical point: biases of a variance ≥ 0, and deviations that grow by `drift` at most."""
    return moments.is_steep and moments.bias >= -_SLACK and moments.drift <= drift + _SLACK


@functools.lru_cache(maxsize=512)
def _edge_of_chaos(activation: Activation, q: float | None) -> Critical | None:
    if activation.name == "spike":
        return None
    start = q or 1.0
    found = _nearest(_exists, activation, start=start, limit=max(1e4, 10 * start))
    if found and q is None and found.q == start and found.bias > LARGEST_BIAS_SHARE:
        modest = _nearest(_is_modest, activation, start=found.q, limit=1e-8)
        found = modest or found
    return found.critical() if found else None


def _is_modest(moments: _Moments) -> bool:
    return _exists(moments) and moments.bias <= LARGEST_BIAS_SHARE


@functools.lru_cache(maxsize=512)
def _isometry(activation: Activation, depth: int) -> Critical | None:
    allowed = JACOBIAN_SPREAD / depth
    found = _nearest(
        lambda moments: _exists(moments, allowed) and moments.spread <= allowed, activation, start=1.0, limit=1e-8
    )
    return found.critical() if found and activation.name != "spike" else None


def _nearest(
    good: Callable[[_Moments], bool], activation: Activation, *, start: float, limit: float
) -> _Moments | None:
    """Returns the moments at the good variance nearest to `start` on the way to `limit`; None where none is."""
    outside = start
    for q in np.geomspace(start, limit, 1 + math.ceil(8 * abs(math.log10(limit / start)))):
        found = _moments(activation, float(q))
        if good(found):
            return _refined(good, activation, outside, found)
        outside = float(q)
    return None


def _refined(good: Callable[[_Moments], bool], activation: Activation, outside: float, found: _Moments) -> _Moments:
    """Returns the good moments nearest to `outside`, by bisection from the good ones found."""
    while abs(math.log(found.q / outside)) > 1e-7:
        middle = _moments(activation, math.sqrt(outside * found.q))
        if good(middle):
            found = middle
        else:
            outside = middle.q
    return found


LINEAR = Activation()
