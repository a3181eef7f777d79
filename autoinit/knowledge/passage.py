"""What a signal goes through on its way from the data to the output, by mean-field theory: no pass is run.

Two inputs that have nothing in common are followed through the weights in the order of their depth: the power of the
units (their second moment), how alike the two have become, and by what factor a gradient grows on its way back. Wide
layers are assumed, whose preactivations are normal; a sum over tokens or neighbours counts as one of them. The numbers
are ratios, so they mean the same in a small network and in a large one.

Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232; Daniely et al. 2016, arXiv:1602.05897.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ..activations import Activation, Array
from ..graph import Graph, Layer

MOST = 20.0
"""Logarithms of standard deviations end at ± this."""
TERMS, NODES = 12, 601
"""Of a Hermite expansion, and of the grid that it is integrated on."""
SMALLEST = 1e-12
"""Powers below count as this."""
ASIDE = frozenset({"query", "key", "gate", "router", "recurrent"})
"""Roles of weights that weigh or repeat a signal, but are not what it passes through."""
FINER = 8
"""Standard deviations are told apart to the so many-th part of a factor of 2."""


@dataclass(frozen=True, slots=True)
class Strength:
    """What one weight does to the power of a signal.

    Attributes:
        factor: standard deviation of its entries times √fan_in.
        aimed: the output's standard deviation, where that is brought about whatever the input is; None elsewhere.
    """

    factor: float
    aimed: float | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of a signal; all but the last are log2.

    Attributes:
        signal: standard deviation of what the output weight reads.
        output: standard deviation of the output.
        apart: 1 less the correlation, there, of two inputs that had none.
        backward: growth of a gradient from there back to the first weight.
        backward_range: largest over smallest size of that gradient on the way.
        stream: growth of the residual stream from its first add to its end; None without branches.
        branch_first, branch_last: standard deviation of what a branch adds over that of its stream.
        bend: share of the units' variance that is no linear function of their inputs.
    """

    signal: float
    output: float
    apart: float
    backward: float
    backward_range: float
    stream: float | None
    branch_first: float | None
    branch_last: float | None
    bend: float


@dataclass(frozen=True, slots=True)
class _State:
    """The second moment of the units, the correlation of the two inputs' units, log2 of the gradient's growth."""

    power: float = 1.0
    alike: float = 0.0
    backward: float = 0.0


def passage(graph: Graph, strengths: Mapping[str, Strength]) -> Passage | None:
    """Returns what becomes of a signal; None where no weight is known.

    Args:
        graph: the architecture.
        strengths: of its weights, by name; those that are unknown are passed over.
    """
    weights = [one for one in graph.layers if one.is_matrix and one.name in strengths and one.role not in ASIDE]
    if not weights:
        return None
    walk = _Walk(graph, strengths)
    heads = [layer for layer in weights if layer.role == "output"]
    for _, block in itertools.groupby(sorted(weights, key=_order), key=lambda layer: _order(layer)[:2]):
        walk.take([layer for layer in block if layer.role != "output"])
    return walk.arrived(heads)


def _order(layer: Layer) -> tuple[int, bool, int]:
    return layer.residual_depth, layer.in_branch, layer.depth


class _Walk:
    """Follows a signal block by block."""

    def __init__(self, graph: Graph, strengths: Mapping[str, Strength]) -> None:
        self.strengths = strengths
        tables = [
            strengths[one.name].factor for one in graph.layers if one.name in strengths and one.kind == "embedding"
        ]
        self.state = _State(max(SMALLEST, sum(std**2 for std in tables) or 1.0))
        self.normed = {(one.residual_depth, one.depth) for one in graph.layers if one.role == "norm_scale"}
        self.backward: list[float] = [0.0]
        self.adds: list[float] = []
        self.start = self.state.power
        self.bends: list[float] = []

    def take(self, block: Sequence[Layer]) -> None:
        """Passes the weights of a branch, or of what lies between two."""
        if not block:
            return
        if not block[0].in_branch:
            self.state = self._through(self.state, block)
        else:
            self._add(block)
        self.backward.append(self.state.backward)

    def _add(self, branch: Sequence[Layer]) -> None:
        stream = self.state
        normed = (branch[0].residual_depth, branch[0].depth) in self.normed
        inside = self._through(_State(1.0 if normed else stream.power, stream.alike), branch)
        gain = 4.0 ** min(MOST, inside.backward) / (stream.power if normed else 1.0)
        power = stream.power + inside.power
        alike = (stream.power * stream.alike + inside.power * inside.alike) / power
        backward = stream.backward + 0.5 * math.log2(1 + gain)
        if not self.adds:
            self.start = stream.power
        self.adds.append(0.5 * _log2(inside.power / stream.power))
        if any(layer.post_norm for layer in branch):
            backward, power = backward - 0.5 * _log2(power), 1.0
        self.state = _State(power, alike, backward)

    def _through(self, state: _State, layers: Sequence[Layer]) -> _State:
        for _, group in itertools.groupby(layers, key=lambda layer: layer.depth):
            state = self._weight(state, list(group))
        return state

    def _weight(self, state: _State, siblings: Sequence[Layer]) -> _State:
        """Passes weights of one depth, which stand side by side, and the activation that follows them."""
        layer = siblings[0]
        power = max(SMALLEST, 1.0 if layer.normalized else fmean(self._power(state, one) for one in siblings))
        seen = _moments(layer.activation, round(FINER * 0.5 * math.log2(power)))
        if layer.activation.name != "linear":
            self.bends.append(seen.bend)
        square = max(SMALLEST, seen.square * power)
        alike = float(seen.terms @ state.alike ** np.arange(TERMS + 1))
        slope = 0.5 * _log2(power / state.power * seen.slope)
        return _State(square, min(1.0, alike), state.backward + slope)

    def _power(self, state: _State, layer: Layer) -> float:
        strength = self.strengths[layer.name]
        return strength.factor**2 * state.power if strength.aimed is None else strength.aimed**2

    def arrived(self, heads: Sequence[Layer]) -> Passage:
        """Returns what became of the signal, the output weights passed last."""
        state = self.state
        output = fmean(self._power(state, one) for one in heads) if heads else state.power
        ends = (self.adds[0], self.adds[-1]) if self.adds else (None, None)
        return Passage(
            signal=0.5 * _log2(state.power),
            output=0.5 * _log2(output),
            apart=_log2(max(1 - state.alike, 2.0**-MOST)),
            backward=max(-MOST, min(MOST, state.backward)),
            backward_range=min(MOST, max(self.backward) - min(self.backward)),
            stream=0.5 * _log2(state.power / self.start) if self.adds else None,
            branch_first=ends[0],
            branch_last=ends[1],
            bend=fmean(self.bends) if self.bends else 0.0,
        )


@dataclass(frozen=True, slots=True)
class _Moments:
    """What an activation makes of normal preactivations.

    Attributes:
        square: second moment of the units, over that of the preactivations.
        slope: mean square of the slope.
        terms: [TERMS + 1], shares of the second moment by degree: how alike two units are is Σ terms·cᵏ, where their
            preactivations have the correlation c (the last one is what lies beyond).
        bend: share of the variance that is not of degree 1.
    """

    square: float
    slope: float
    terms: Array
    bend: float


@functools.lru_cache(maxsize=4096)
def _moments(activation: Activation, eighths: int) -> _Moments:
    """Returns the moments at a standard deviation of 2^(eighths/8)."""
    std = 2.0 ** (eighths / FINER)
    grid, weight, hermite = _grid()
    values = activation(std * grid)
    square = float(weight @ values**2)
    if square < SMALLEST * std**2:
        return _Moments(0.0, 0.0, np.eye(TERMS + 1)[1], 0.0)
    slopes = np.diff(values) / (std * np.diff(grid))
    middle = np.exp(-0.5 * (0.5 * (grid[1:] + grid[:-1])) ** 2)
    shares = (hermite @ (weight * values)) ** 2 / square
    terms = np.append(shares, max(0.0, 1 - shares.sum()))
    varying = 1 - shares[0]
    bend = 1 - shares[1] / varying if varying > SMALLEST else 0.0
    return _Moments(square / std**2, float(middle @ slopes**2 / middle.sum()), terms / terms.sum(), float(bend))


@functools.cache
def _grid() -> tuple[Array, Array, Array]:
    """Returns nodes, weights of a standard normal, and the Hermite polynomials there, of norm 1."""
    grid = np.linspace(-6.0, 6.0, NODES)
    weight = np.exp(-0.5 * grid**2)
    rows = [np.ones_like(grid), grid]
    for degree in range(2, TERMS):
        rows.append((grid * rows[-1] - math.sqrt(degree - 1) * rows[-2]) / math.sqrt(degree))
    return grid, weight / weight.sum(), np.stack(rows)


def _log2(value: float) -> float:
    """Returns the logarithm of a power, within twice what that of a standard deviation may be."""
    return max(-2 * MOST, min(2 * MOST, math.log2(value))) if value > 0 else -2 * MOST
