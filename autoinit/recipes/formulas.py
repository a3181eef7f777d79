"""The formulas: what one layer gets under each named scheme, as pure arithmetic on its fans, gain and place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..activations import Critical
from ..graph import Graph, Layer
from .agents import part_of

Distribution = Literal[
    "keep",
    "copy",
    "constant",
    "normal",
    "uniform",
    "truncated_normal",
    "sparse",
    "orthogonal",
    "butterfly_orthogonal",
    "delta_orthogonal",
    "mirrored",
    "mirrored_rows",
    "mirrored_columns",
    "identity",
    "hadamard",
    "mimetic_query",
    "mimetic_key",
    "mimetic_value",
    "mimetic_out",
    "mimetic_qkv",
    "chrono",
    "given",
    "remainder",
]
Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geometric"]


@dataclass(frozen=True, slots=True)
class LayerDraw:
    """What one weight matrix is drawn from.

    Attributes:
        distribution: of the entries.
        std: root mean square of the entries.
        instead: why it is another scheme's draw, where the scheme has none for the layer.
        worked: the formula with the layer's numbers in it; empty where there is nothing to work out.
        bias_std: standard deviation of the bias that goes with it; 0 where it starts at zero.
    """

    distribution: Distribution
    std: float
    worked: str = ""
    bias_std: float = 0.0
    instead: str = ""


Rule = Callable[[Layer, Graph], LayerDraw]


# Sizes and gains of one layer


def gain(layer: Layer) -> float:
    """Returns the gain that keeps the second moment through the layer's activation.

    Recurrent cells get 1: their gates bound the state, and the step is repeated.
    """
    return 1.0 if layer.kind == "recurrent" else layer.activation.gain()


def _gain_text(layer: Layer) -> str:
    value = gain(layer)
    return "√2" if math.isclose(value, math.sqrt(2), rel_tol=1e-6) else f"{value:.3g}"


def rows_and_columns(layer: Layer) -> tuple[int, int]:
    """Returns the size of one matrix of the layer: outputs and inputs of one slice of one group."""
    rows = math.prod(layer.shape[axis] for axis in layer.out_axes) // layer.slices
    columns = math.prod(layer.shape[axis] for axis in layer.in_axes)
    # Axis 0 holds the groups: of outputs, or of inputs where the convolution is transposed.
    if 0 in layer.out_axes:
        return max(1, rows // layer.groups), max(1, columns)
    return max(1, rows), max(1, columns // layer.groups)


def kernel_size(layer: Layer) -> int:
    """Returns the number of taps of a convolution's kernel; 1 for what is no convolution."""
    return math.prod(layer.shape[axis] for axis in layer.kernel_axes)


def _at_centre(layer: Layer) -> tuple[int, int, int]:
    """Returns outputs, input channels and taps of a layer whose matrix stands at the centre of its kernel."""
    rows, columns = rows_and_columns(layer)
    taps = kernel_size(layer)
    return rows, max(1, columns // taps), taps


def fan(layer: Layer, mode: Mode) -> float:
    """Returns the size that a variance is divided by: a fan of the layer, or a mean of both."""
    return {
        "fan_in": float(layer.fan_in),
        "fan_out": float(layer.fan_out),
        "fan_avg": (layer.fan_in + layer.fan_out) / 2,
        "fan_geometric": math.sqrt(layer.fan_in * layer.fan_out),
    }[mode]


# Rules: what one layer gets


def owner(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns the owner's own draw."""
    return LayerDraw("keep", math.nan)


def scaled(distribution: Distribution, family: str) -> Rule:
    """Returns the rule of one member of the variance-scaling family."""

    def he(layer: Layer, graph: Graph) -> LayerDraw:
        return LayerDraw(distribution, gain(layer) / math.sqrt(layer.fan_in), f"{_gain_text(layer)}/√{layer.fan_in}")

    def xavier(layer: Layer, graph: Graph) -> LayerDraw:
        std = math.sqrt(2.0 / (layer.fan_in + layer.fan_out))
        return LayerDraw(distribution, std, f"√(2/({layer.fan_in} + {layer.fan_out}))")

    def lecun(layer: Layer, graph: Graph) -> LayerDraw:
        return LayerDraw(distribution, 1.0 / math.sqrt(layer.fan_in), f"1/√{layer.fan_in}")

    return {"he": he, "xavier": xavier, "lecun": lecun}[family]


def fixed(distribution: Distribution, std: float) -> Rule:
    """Returns the rule of one std for every layer, whatever its fans."""
    return lambda layer, graph: LayerDraw(distribution, std)


def average(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns 1/fan_in: each unit is the mean of its inputs."""
    return LayerDraw("constant", 1.0 / layer.fan_in, f"1/{layer.fan_in}")


def sparse(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns few non-zero weights for each unit, with the variance that He would have (Martens 2010)."""
    return LayerDraw("sparse", gain(layer) / math.sqrt(layer.fan_in), f"{_gain_text(layer)}/√{layer.fan_in} over all")


def orthogonal(distribution: Distribution) -> Rule:
    """Returns the rule of an orthogonal matrix times the gain (Saxe et al. 2014)."""

    def rule(layer: Layer, graph: Graph) -> LayerDraw:
        # The root mean square entry of a matrix with orthonormal rows or columns, times the gain.
        size = max(rows_and_columns(layer))
        return LayerDraw(distribution, gain(layer) / math.sqrt(size), f"{_gain_text(layer)}/√{size}")

    return rule


def _at_centre_orthogonal(layer: Layer, value: float, bias_std: float = 0.0) -> LayerDraw:
    """Returns an orthogonal matrix at the centre of the kernel (the whole matrix of a linear layer)."""
    rows, channels, taps = _at_centre(layer)
    size = max(rows, channels) * taps
    return LayerDraw("delta_orthogonal", value / math.sqrt(size), f"{value:.3g}/√{size}", bias_std)


def delta(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns an orthogonal matrix times the gain, at the centre of the kernel (Xiao et al. 2018)."""
    return _at_centre_orthogonal(layer, gain(layer))


def mirrored(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns pairs of opposite units, whose activations add up to a linear map (Balduzzi et al. 2017)."""
    rows, channels, taps = _at_centre(layer)
    ends: dict[str, Distribution] = {"input": "mirrored_rows", "output": "mirrored_columns"}
    distribution = ends.get(layer.role, "mirrored")
    rows = math.ceil(rows / 2) if distribution != "mirrored_columns" else rows
    channels = math.ceil(channels / 2) if distribution != "mirrored_rows" else channels
    # φ(x) − φ(−x) = slope·x leaves this layer, so that much is taken back.
    slope = (layer.activation.odd_slope() or 1.0) if layer.role != "output" else 1.0
    size = max(rows, channels) * taps
    return LayerDraw(
        distribution, 1 / (slope * math.sqrt(size)), f"1/√{size}" if slope == 1 else f"1/({slope:g}·√{size})"
    )


def identity(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns the identity, at the centre of the kernel."""
    rows, channels, taps = _at_centre(layer)
    return LayerDraw("identity", 1 / math.sqrt(max(rows, channels) * taps))


def hadamard(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns a partial identity, or columns of a normalized Hadamard matrix (Zhao et al. 2021)."""
    rows, channels, taps = _at_centre(layer)
    # A wider output takes its columns from a normalized Hadamard matrix of the next power of two.
    size = channels if rows <= channels else 2 ** math.ceil(math.log2(rows))
    return LayerDraw("hadamard", 1 / math.sqrt(size * taps))


def critical(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns weights and biases on the edge of chaos; He where there is none (Schoenholz et al. 2017)."""
    point = layer.activation.edge_of_chaos()
    if point is None or layer.kind == "recurrent":
        return _he_instead(layer, graph, f"{layer.activation} has no critical point")
    sigma = _entering(layer, point)
    entering = " (for data of variance 1)" if layer.role == "input" else ""
    worked = f"{sigma:.3g}/√{layer.fan_in}{entering}"
    return LayerDraw("normal", sigma / math.sqrt(layer.fan_in), worked, point.sigma_b)


def isometric(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns an orthogonal matrix at a critical point that suits the depth (Pennington et al. 2017)."""
    point = layer.activation.isometry(len(graph.weights))
    if point is None or layer.kind == "recurrent":
        return _at_centre_orthogonal(layer, gain(layer))
    return _at_centre_orthogonal(layer, _entering(layer, point), point.sigma_b)


def _entering(layer: Layer, point: Critical) -> float:
    """Returns σ_w, and for the first layer the gain that takes data of unit variance to the fixed point at once."""
    return point.sigma_in if layer.role == "input" else point.sigma_w


def _he_instead(layer: Layer, graph: Graph, why: str) -> LayerDraw:
    return dataclasses.replace(scaled("normal", "he")(layer, graph), instead=f"He ({why})")


def selu(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns LeCun's normal before SELU and linear units (Klambauer et al. 2017), He before others."""
    if layer.activation.name not in ("selu", "linear"):
        return _he_instead(layer, graph, f"{layer.activation} is no SELU")
    return scaled("normal", "lecun")(layer, graph)


def siren(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns uniform weights that keep the phase of sines at unit variance (Sitzmann et al. 2020).

    Biases are U(−1/√n, 1/√n), and the head is divided by ω as the sines' weights are: so does the authors' code.
    """
    if layer.activation.name not in ("sin", "linear"):
        return _he_instead(layer, graph, f"{layer.activation} is no sine")
    bias_std = 1.0 / math.sqrt(3.0 * layer.fan_in)
    if layer.role == "input":
        return LayerDraw("uniform", 1.0 / (layer.fan_in * math.sqrt(3.0)), f"1/({layer.fan_in}·√3)", bias_std)
    sines = (one.activation for one in (layer, *graph.weights) if one.activation.name == "sin")
    omega = next((sine.parameters[0] for sine in sines if sine.parameters), 1.0)
    # Sines of a uniform phase have variance 1/2, so √2/√fan_in keeps the phase at unit variance before ω.
    return LayerDraw("uniform", math.sqrt(2.0 / layer.fan_in) / omega, f"√(2/{layer.fan_in})/{omega:g}", bias_std)


POLICY_GAIN = 0.01
"""Of a policy's head: actions are nearly as likely as each other at first (Andrychowicz et al. 2020)."""


def agent(layer: Layer, graph: Graph) -> LayerDraw:
    """Returns orthogonal weights of gain √2 whatever the activation, 0.01 of a policy's head, 1 of any other head.

    Recurrent cells get 1, as in the code of PPO for LSTMs (Huang et al. 2022).
    """
    value, said = math.sqrt(2.0), "√2"
    if layer.kind == "recurrent" or layer.role == "recurrent":
        value, said = 1.0, "1"
    elif layer.role == "output":
        policy = part_of(layer, graph) == "policy"
        value, said = (POLICY_GAIN, f"{POLICY_GAIN:g}") if policy else (1.0, "1")
    size = max(rows_and_columns(layer))
    return LayerDraw("orthogonal", value / math.sqrt(size), f"{said}/√{size}")


# Mimetic attention: weights that are factors of one matrix, two parameters at a time


@dataclass(frozen=True, slots=True)
class Mimetic:
    """How one weight of an attention is drawn.

    Attributes:
        distribution: which factor it is.
        stream: what the random stream is called that both factors of one matrix draw from.
        why: in words.
    """

    distribution: Distribution
    stream: str
    why: str


_QUERY_KEY = "W_qᵀW_k ≈ 0.7·Z + 0.7·1 in each head"
_OUT_VALUE = "W_out·W_v ≈ 0.4·Z − 0.4·1"
_MIMETIC: dict[str, Mimetic] = {
    "query": Mimetic("mimetic_query", "queries", f"mimetic: {_QUERY_KEY}"),
    "key": Mimetic("mimetic_key", "queries", f"mimetic: {_QUERY_KEY}"),
    "value": Mimetic("mimetic_value", "values", f"mimetic: {_OUT_VALUE}"),
    "attention_out": Mimetic("mimetic_out", "values", f"mimetic: {_OUT_VALUE}"),
    "qkv": Mimetic("mimetic_qkv", "values", f"mimetic: {_QUERY_KEY}, {_OUT_VALUE}"),
}
"""By role. A fused weight draws the values' matrix first, as the output weight that shares its stream does."""


def mimetic(layer: Layer, graph: Graph) -> Mimetic | None:
    """Returns the draw of a weight of self-attention (Trockman & Kolter 2023, arXiv:2305.09828).

    None for what is no self-attention, and where its weights are no factors of square matrices: heads that share keys
    and values, kept weights, inputs of different widths.
    """
    if layer.role not in _MIMETIC or not layer.attention or layer.cross or layer.heads < 1:
        return None
    group = [other for other in graph.layers if other.attention == layer.attention]
    if any(other.keep or (other.role == "qkv" and other.slices != 3) for other in group):
        return None
    widths = {size for other in group for size in rows_and_columns(other)}
    heads = {other.heads for other in group}
    return _MIMETIC[layer.role] if len(widths) == len(heads) == 1 else None
