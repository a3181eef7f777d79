"""The named schemes: one row per way to draw a weight, with its formula, source and what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .errors import RecipeError, did_you_mean
from .graph import Graph, Layer

Distribution = Literal["keep", "normal", "uniform", "truncated_normal", "orthogonal", "identity", "constant"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the weight matrices of a network are drawn.

    Attributes:
        name: as used in recipes.
        title: as people say it.
        distribution: what the entries are drawn from; "keep" leaves the owner's own draw.
        std: standard deviation of the entries of one layer.
        worked: the formula with one layer's numbers in it.
        formula: the formula with the symbols of the source.
        source: author, year, arXiv number.
        purpose: the networks it was made for.
        embeddings: whether embedding tables are drawn too; else they are kept.
        fits: whether the search offers it for an architecture.
    """

    name: str
    title: str
    distribution: Distribution
    std: Callable[[Layer], float]
    worked: Callable[[Layer], str]
    formula: str
    source: str
    purpose: str
    embeddings: bool = False
    fits: Callable[[Graph], bool] = lambda graph: True


def gain(layer: Layer) -> float:
    """Returns the gain that keeps the second moment through the layer's activation.

    Recurrent cells get 1: their gates bound the state, and the step is repeated.
    """
    return 1.0 if layer.kind == "recurrent" else layer.activation.gain()


def _he(layer: Layer) -> float:
    return gain(layer) / math.sqrt(layer.fan_in)


def _he_worked(layer: Layer) -> str:
    return f"{_gain_text(layer)}/√{layer.fan_in}"


def _gain_text(layer: Layer) -> str:
    value = gain(layer)
    return "√2" if math.isclose(value, math.sqrt(2), rel_tol=1e-6) else f"{value:.3g}"


def _xavier(layer: Layer) -> float:
    return math.sqrt(2.0 / (layer.fan_in + layer.fan_out))


def _xavier_worked(layer: Layer) -> str:
    return f"√(2/({layer.fan_in} + {layer.fan_out}))"


def _lecun(layer: Layer) -> float:
    return 1.0 / math.sqrt(layer.fan_in)


def _lecun_worked(layer: Layer) -> str:
    return f"1/√{layer.fan_in}"


def _orthogonal(layer: Layer) -> float:
    # The root mean square entry of a matrix with orthonormal rows or columns, times the gain.
    return gain(layer) / math.sqrt(max(rows_and_columns(layer)))


def _orthogonal_worked(layer: Layer) -> str:
    return f"{_gain_text(layer)}/√{max(rows_and_columns(layer))}"


def rows_and_columns(layer: Layer) -> tuple[int, int]:
    """Returns the size of one matrix of the layer: outputs and inputs of one slice of one group."""
    rows = math.prod(layer.shape[axis] for axis in layer.out_axes) // layer.slices
    columns = math.prod(layer.shape[axis] for axis in layer.in_axes)
    # Axis 0 holds the groups: of outputs, or of inputs where the convolution is transposed.
    if 0 in layer.out_axes:
        return max(1, rows // layer.groups), max(1, columns)
    return max(1, rows), max(1, columns // layer.groups)


def _siren(layer: Layer) -> float:
    if layer.role == "input":
        return 1.0 / (layer.fan_in * math.sqrt(3.0))
    # Sines of a uniform phase have variance 1/2, so √2/√fan_in keeps the phase at unit variance before ω.
    return math.sqrt(2.0 / layer.fan_in) / _omega(layer)


def _siren_worked(layer: Layer) -> str:
    return f"1/({layer.fan_in}·√3)" if layer.role == "input" else f"√(2/{layer.fan_in})/{_omega(layer):g}"


def _omega(layer: Layer) -> float:
    sine = layer.activation.name == "sin" and layer.activation.parameters
    return layer.activation.parameters[0] if sine else 1.0


def _has_sine(graph: Graph) -> bool:
    return any(layer.activation.name == "sin" for layer in graph.weights)


_HE = ("std = gain(φ)/√fan_in", "He et al. 2015, arXiv:1502.01852", "ReLU-like networks")
_XAVIER = ("std = √(2/(fan_in + fan_out))", "Glorot & Bengio 2010", "tanh-like networks")
_LECUN = ("std = 1/√fan_in", "LeCun et al. 1998", "SELU and normalized networks")
_BERT = ("std = 0.02, cut at two of its widths", "Devlin et al. 2018, arXiv:1810.04805", "Transformers")
_SAXE = (
    "W = gain(φ)·Q, QᵀQ = 1 or QQᵀ = 1",
    "Saxe et al. 2014, arXiv:1312.6120",
    "deep and recurrent networks",
)
_SINES = (
    "first layer U(−1/n, 1/n), the other sines U(−√(6/n)/ω, √(6/n)/ω), the head without ω",
    "Sitzmann et al. 2020, arXiv:2006.09661",
    "networks of sines",
)
_OWNER = ("the weights as the model's own code drew them", "the model's owner", "every network")

_ROWS = (
    Scheme("as_is", "as is", "keep", lambda _: math.nan, lambda _: "", *_OWNER),
    Scheme("he_normal", "He", "normal", _he, _he_worked, *_HE),
    Scheme("he_uniform", "He", "uniform", _he, _he_worked, *_HE),
    Scheme("xavier_normal", "Xavier", "normal", _xavier, _xavier_worked, *_XAVIER),
    Scheme("xavier_uniform", "Xavier", "uniform", _xavier, _xavier_worked, *_XAVIER),
    Scheme("lecun_normal", "LeCun", "normal", _lecun, _lecun_worked, *_LECUN),
    Scheme("lecun_uniform", "LeCun", "uniform", _lecun, _lecun_worked, *_LECUN),
    Scheme(
        "truncated_normal_002",
        "Truncated normal",
        "truncated_normal",
        lambda _: 0.02,
        lambda _: "0.02",
        *_BERT,
        embeddings=True,
    ),
    Scheme("orthogonal", "Orthogonal", "orthogonal", _orthogonal, _orthogonal_worked, *_SAXE),
    Scheme("siren", "SIREN", "uniform", _siren, _siren_worked, *_SINES, fits=_has_sine),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}

SEARCHED = (
    "as_is",
    "he_normal",
    "xavier_normal",
    "lecun_normal",
    "truncated_normal_002",
    "orthogonal",
    "siren",
)
"""What the search draws from: one row per family, since normal and uniform draws of one variance train alike."""


def scheme(name: str) -> Scheme:
    """Returns the row called `name`.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    try:
        return SCHEMES[name]
    except KeyError:
        raise RecipeError(f"No initialization scheme is called {name!r}. {did_you_mean(name, SCHEMES)}") from None
