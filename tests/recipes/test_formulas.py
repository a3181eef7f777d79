from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from graphs import RELU, TANH, linear, mlp, transformer
from torch import Tensor

from autoinit.activations import Activation
from autoinit.graph import Graph, Layer
from autoinit.initializers.draws import fill_
from autoinit.initializers.geometry import Geometry
from autoinit.recipes import formulas
from autoinit.recipes.formulas import LayerDraw, Rule, fan, gain, kernel_size, rows_and_columns

GRAPH = Graph(())
INPUT = "{} (for data of variance 1)"


def conv(out: int, channels: int, groups: int = 1, taps: tuple[int, ...] = (3, 3), **rest: Any) -> Layer:
    """A convolution's weight [out, channels of a group, taps]."""
    kernel = math.prod(taps)
    facts: dict[str, Any] = {"fan_in": channels * kernel, "fan_out": out // groups * kernel, "role": "hidden"}
    axes = tuple(range(1, 2 + len(taps)))
    shape = (out, channels, *taps)
    return Layer(name="w", shape=shape, kind="conv", out_axes=(0,), in_axes=axes, groups=groups, **{**facts, **rest})


def transposed(inner: int, out: int, groups: int = 1) -> Layer:
    """A transposed convolution's weight [inputs, outputs of a group, 3]."""
    facts: dict[str, Any] = {"fan_in": 3 * inner // groups, "fan_out": 3 * out, "role": "hidden", "groups": groups}
    return Layer(name="w", shape=(inner, out, 3), kind="conv_transposed", out_axes=(1,), in_axes=(0, 2), **facts)


LAYERS = {
    "square": linear("w", 16, 16),
    "wide": linear("w", 8, 32),
    "tall": linear("w", 32, 8),
    "odd": linear("w", 24, 10),
    "one row": linear("w", 1, 8),
    "one column": linear("w", 8, 1),
    "fused": linear("w", 48, 16, slices=3, fan_out=16),
    "conv": conv(16, 8),
    "expanding conv": conv(32, 4, taps=(5,)),
    "grouped conv": conv(16, 4, groups=2),
    "transposed conv": transposed(8, 4),
    "grouped transposed conv": transposed(8, 8, groups=2),
}


def drawn(layer: Layer, draw: LayerDraw) -> Tensor:
    """A tensor of the layer's shape, filled as the draw says."""
    geometry = Geometry(layer.out_axes, layer.in_axes, layer.groups, layer.slices, layer.kernel_axes)
    tensor = torch.empty(layer.shape, dtype=torch.float64)
    fill_(tensor, draw.distribution, geometry, draw.std, torch.Generator().manual_seed(0))
    return tensor


def matrices(layer: Layer, tensor: Tensor) -> Tensor:
    """The matrices [blocks, outputs, inputs] of a weight, of a convolution those at the centre of its kernel."""
    geometry = Geometry(layer.out_axes, layer.in_axes, layer.groups, layer.slices, layer.kernel_axes)
    centre, channels = geometry.centre(tensor)
    return channels.blocks(centre)


def distance(matrix: Tensor) -> float:
    """How far the rows or columns of a matrix, whichever are fewer, are from orthonormal ones."""
    gram = matrix @ matrix.T if len(matrix) <= len(matrix.T) else matrix.T @ matrix
    return float((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max())


# Structured draws: the stated std makes exactly the matrix that is meant


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("activation", [Activation(), RELU], ids=str)
def test_delta_is_the_gain_times_an_orthogonal_matrix(shape: str, activation: Activation) -> None:
    layer = dataclasses.replace(LAYERS[shape], activation=activation)
    tensor = drawn(layer, formulas.delta(layer, GRAPH))
    for matrix in matrices(layer, tensor):
        assert distance(matrix / gain(layer)) < 1e-5
    assert float(tensor.norm()) == pytest.approx(float(matrices(layer, tensor).norm()))  # nothing beside the centre


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("distribution", ["orthogonal", "butterfly_orthogonal"])
def test_orthogonal_takes_the_kernel_into_its_columns(shape: str, distribution: Any) -> None:
    layer = dataclasses.replace(LAYERS[shape], activation=TANH)
    tensor = drawn(layer, formulas.orthogonal(distribution)(layer, GRAPH))
    geometry = Geometry(layer.out_axes, layer.in_axes, layer.groups, layer.slices, layer.kernel_axes)
    for matrix in geometry.blocks(tensor):
        assert matrix.shape == rows_and_columns(layer)
        assert distance(matrix / TANH.gain()) < 1e-5


@pytest.mark.parametrize("shape", LAYERS)
def test_identity_has_ones(shape: str) -> None:
    layer = LAYERS[shape]
    tensor = drawn(layer, formulas.identity(layer, GRAPH))
    for matrix in matrices(layer, tensor):
        torch.testing.assert_close(matrix, torch.eye(*matrix.shape, dtype=matrix.dtype))
    assert float(tensor.norm()) == pytest.approx(float(matrices(layer, tensor).norm()))


@pytest.mark.parametrize("shape", LAYERS)
def test_hadamard_is_normalized_to_the_next_power_of_two(shape: str) -> None:
    layer = LAYERS[shape]
    for matrix in matrices(layer, drawn(layer, formulas.hadamard(layer, GRAPH))):
        rows, columns = matrix.shape
        if rows <= columns:
            torch.testing.assert_close(matrix, torch.eye(rows, columns, dtype=matrix.dtype))
        else:
            power = 2 ** math.ceil(math.log2(rows))
            torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, power**-0.5))
            assert distance(matrix) < 1e-6 or rows != power  # columns are orthonormal where none was cut off


@pytest.mark.parametrize(("name", "slope"), [("relu", 1.0), ("gelu", 1.0), ("silu", 1.0), ("leaky_relu", 1.1)])
def test_mirrored_layers_pass_a_linear_map(name: str, slope: float) -> None:
    """First [A; −A], then [[A, −A], [−A, A]], last [A, −A]: halves are orthogonal, and φ's slope is taken back."""
    phi = Activation(name, (0.1,) if name == "leaky_relu" else ())
    first = linear("w", 16, 6, role="input", activation=phi)
    hidden, last = linear("w", 16, 16, activation=phi), linear("w", 5, 16, role="output")
    a, b, c = (drawn(layer, formulas.mirrored(layer, GRAPH)) for layer in (first, hidden, last))
    torch.testing.assert_close(a[:8], -a[8:])
    torch.testing.assert_close(b[:8, :8], b[8:, 8:])
    torch.testing.assert_close(b[:8, :8], -b[8:, :8])
    torch.testing.assert_close(c[:, :8], -c[:, 8:])
    assert distance(slope * a[:8]) < 1e-5
    assert distance(slope * b[:8, :8]) < 1e-5
    assert distance(c[:, :8]) < 1e-5
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    act = {
        "relu": torch.relu,
        "gelu": torch.nn.functional.gelu,
        "silu": torch.nn.functional.silu,
        "leaky_relu": lambda value: torch.nn.functional.leaky_relu(value, 0.1),
    }[name]
    found = c @ act(b @ act(a @ x))
    torch.testing.assert_close(found, slope**2 * c[:, :8] @ (b[:8, :8] @ (a[:8] @ x)))


@pytest.mark.parametrize("shape", ["square", "wide", "tall", "conv", "grouped conv", "transposed conv"])
def test_mirrored_halves_are_orthogonal_in_every_shape(shape: str) -> None:
    layer = dataclasses.replace(LAYERS[shape], activation=RELU)
    for matrix in matrices(layer, drawn(layer, formulas.mirrored(layer, GRAPH))):
        rows, columns = matrix.shape
        assert distance(matrix[: rows // 2, : columns // 2]) < 1e-5


# Every draw: the std that is stated is the root mean square that is drawn

RULES: dict[str, Rule] = {
    "normal": formulas.scaled("normal", "he"),
    "uniform": formulas.scaled("uniform", "xavier"),
    "truncated_normal": formulas.scaled("truncated_normal", "lecun"),
    "fixed": formulas.fixed("normal", 0.02),
    "sparse": formulas.sparse,
    "orthogonal": formulas.orthogonal("orthogonal"),
    "delta": formulas.delta,
    "mirrored": formulas.mirrored,
    "identity": formulas.identity,
    "hadamard": formulas.hadamard,
    "critical": formulas.critical,
    "isometric": formulas.isometric,
    "siren": formulas.siren,
}
EXACT = {"orthogonal", "delta", "mirrored", "identity", "hadamard", "isometric"}
"""Draws whose root mean square is no matter of chance."""


@pytest.mark.parametrize("shape", ["square", "wide", "tall", "fused", "conv", "grouped conv", "transposed conv"])
@pytest.mark.parametrize("name", RULES)
def test_the_stated_std_is_the_root_mean_square(name: str, shape: str) -> None:
    layer = dataclasses.replace(LAYERS[shape], activation=TANH)
    draw = RULES[name](layer, mlp(TANH))
    tensor = drawn(layer, draw)
    size = tensor.square().mean().sqrt().item()
    if name in EXACT:
        assert size == pytest.approx(draw.std, rel=1e-5)
    else:  # sparse entries have kurtosis fan_in/5 and not 3
        kurtosis = layer.fan_in / 5 if name == "sparse" and layer.fan_in > 15 else 3
        spread = math.sqrt((kurtosis - 1) / tensor.numel()) / 2
        assert size == pytest.approx(draw.std, rel=5 * spread)


# Sizes


@pytest.mark.parametrize(
    ("layer", "taps", "fans"),
    [
        (LAYERS["wide"], 1, (32, 8, 20, 16)),
        (LAYERS["fused"], 1, (16, 16, 16, 16)),
        (LAYERS["conv"], 9, (72, 144, 108, 72 * math.sqrt(2))),
        (LAYERS["transposed conv"], 3, (24, 12, 18, 12 * math.sqrt(2))),
    ],
)
def test_fans(layer: Layer, taps: int, fans: tuple[float, ...]) -> None:
    assert kernel_size(layer) == taps
    modes = ("fan_in", "fan_out", "fan_avg", "fan_geometric")
    assert [fan(layer, mode) for mode in modes] == pytest.approx(fans)  # type: ignore[arg-type]


def test_gains_are_those_of_the_activation_and_1_in_cells() -> None:
    assert gain(linear("w", 8, 8, activation=RELU)) == pytest.approx(math.sqrt(2))
    assert gain(linear("w", 8, 8)) == pytest.approx(1.0)
    assert gain(linear("w", 8, 8, activation=RELU, kind="recurrent")) == 1.0


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (LAYERS["wide"], (8, 32)),
        (LAYERS["fused"], (16, 16)),  # 48/3 rows
        (LAYERS["grouped conv"], (8, 36)),  # 16/2 rows, 4·9 columns
        (conv(6, 1, groups=6), (1, 9)),  # depthwise
        (LAYERS["grouped transposed conv"], (8, 12)),  # (8/2)·3 columns
        # A matrix without entries counts as one of one entry: nothing is divided by zero.
        (linear("w", 0, 0), (1, 1)),
        (transposed(0, 0), (1, 1)),
    ],
)
def test_a_matrix_is_one_slice_of_one_group(layer: Layer, size: tuple[int, int]) -> None:
    assert rows_and_columns(layer) == size


# Every rule: its number and its formula, worked out by hand


def assert_same(draw: LayerDraw, expected: LayerDraw) -> None:
    """Fails where a draw is another one than expected, in numbers or in words."""
    assert (draw.std, draw.bias_std) == pytest.approx((expected.std, expected.bias_std), rel=1e-6)
    assert dataclasses.replace(draw, std=expected.std, bias_std=expected.bias_std) == expected


def of(activation: Activation, out: int = 8, inner: int = 32, role: str = "hidden", **rest: Any) -> Layer:
    return linear("w", out, inner, activation=activation, role=role, **rest)


LEAKY, SINE, SELU = Activation("leaky_relu", (0.5,)), Activation("sin", (30.0,)), Activation("selu")


@pytest.mark.parametrize(
    ("rule", "layer", "expected"),
    [
        (formulas.scaled("normal", "he"), of(RELU), LayerDraw("normal", 1 / 4, "√2/√32")),
        (formulas.scaled("uniform", "he"), of(LEAKY, inner=10), LayerDraw("uniform", 0.4, "1.26/√10")),  # √(2/1.25)
        (formulas.scaled("normal", "xavier"), of(RELU, 18), LayerDraw("normal", 1 / 5, "√(2/(32 + 18))")),
        (formulas.scaled("normal", "lecun"), of(RELU, inner=25), LayerDraw("normal", 1 / 5, "1/√25")),
        (formulas.scaled("normal", "he"), of(TANH, inner=25), LayerDraw("normal", 0.3185075, "1.59/√25")),
        (formulas.fixed("normal", 0.02), of(RELU), LayerDraw("normal", 0.02)),
        (formulas.average, of(RELU), LayerDraw("constant", 1 / 32, "1/32")),
        (formulas.sparse, of(RELU), LayerDraw("sparse", 1 / 4, "√2/√32 over all")),
        (formulas.orthogonal("orthogonal"), of(RELU), LayerDraw("orthogonal", 1 / 4, "√2/√32")),
        (formulas.orthogonal("orthogonal"), of(RELU, 32, 8), LayerDraw("orthogonal", 1 / 4, "√2/√32")),
        (formulas.orthogonal("orthogonal"), conv(16, 8, activation=RELU), LayerDraw("orthogonal", 1 / 6, "√2/√72")),
        # At the centre of nine taps: a ninth of the squares.
        (formulas.delta, conv(32, 8, activation=RELU), LayerDraw("delta_orthogonal", 1 / 12, "1.41/√288")),
        (formulas.identity, conv(16, 8), LayerDraw("identity", 1 / 12)),
        (formulas.hadamard, of(RELU, 12, 12), LayerDraw("hadamard", 1 / math.sqrt(12))),  # the identity
        (formulas.hadamard, of(RELU, 24, 10), LayerDraw("hadamard", 1 / math.sqrt(32))),  # 24 columns of 32
        (formulas.hadamard, conv(25, 8), LayerDraw("hadamard", 1 / math.sqrt(32 * 9))),
        (formulas.identity, conv(1, 1), LayerDraw("identity", 1 / 3)),
        # Halves of odd sizes are rounded up.
        (formulas.mirrored, of(RELU, 7, 5), LayerDraw("mirrored", 1 / 2, "1/√4")),
        (formulas.mirrored, of(RELU, 7, 5, role="input"), LayerDraw("mirrored_rows", 1 / math.sqrt(5), "1/√5")),
        (formulas.mirrored, of(RELU, 7, 15, role="output"), LayerDraw("mirrored_columns", 1 / math.sqrt(8), "1/√8")),
        (formulas.mirrored, of(LEAKY, 8, 8), LayerDraw("mirrored", 1 / 3, "1/(1.5·√4)")),  # φ(x) − φ(−x) = 1.5·x
        (formulas.mirrored, of(TANH, 8, 8), LayerDraw("mirrored", 1 / 2, "1/√4")),  # no slope to take back
        (formulas.mirrored, conv(8, 8, activation=RELU), LayerDraw("mirrored", 1 / 6, "1/√36")),
        # σ_w = √2 and no biases; what is before the first layer has variance 1 already.
        (formulas.critical, of(RELU), LayerDraw("normal", 1 / 4, "1.41/√32")),
        (formulas.critical, of(RELU, inner=25, role="input"), LayerDraw("normal", 1 / 5, INPUT.format("1/√25"))),
        # tanh: σ_w = 1.355445, σ_b = 0.254285, q = 0.646609, and √(q − σ_b²) = 0.762855.
        (formulas.critical, of(TANH, inner=100), LayerDraw("normal", 0.1355445, "1.36/√100", 0.2542851)),
        (
            formulas.critical,
            of(TANH, inner=100, role="input"),
            LayerDraw("normal", 0.07628555, INPUT.format("0.763/√100"), 0.2542851),
        ),
        (formulas.selu, of(SELU, inner=25), LayerDraw("normal", 1 / 5, "1/√25")),
        (formulas.selu, of(Activation(), inner=25), LayerDraw("normal", 1 / 5, "1/√25")),
    ],
    ids=lambda value: "" if not isinstance(value, LayerDraw) else f"{value.distribution} {value.worked}",
)
def test_a_rule_gives_what_is_worked_out_by_hand(rule: Rule, layer: Layer, expected: LayerDraw) -> None:
    assert_same(rule(layer, GRAPH), expected)


@pytest.mark.parametrize(
    ("rule", "layer", "why"),
    [
        (formulas.critical, of(Activation("relu2")), "He (relu2 has no critical point)"),
        (formulas.selu, of(RELU), "He (relu is no SELU)"),
        (formulas.siren, of(RELU), "He (relu is no sine)"),
    ],
)
def test_a_scheme_that_has_nothing_for_a_layer_gives_he_and_says_why(rule: Rule, layer: Layer, why: str) -> None:
    he = formulas.scaled("normal", "he")(layer, GRAPH)
    assert rule(layer, GRAPH) == dataclasses.replace(he, instead=why)


def test_recurrent_cells_have_no_critical_point_of_their_own() -> None:
    draw = formulas.critical(of(TANH, 25, 25, kind="recurrent"), GRAPH)
    assert (draw.std, draw.bias_std) == (1 / 5, 0.0)


@pytest.mark.parametrize(
    ("layer", "depth", "expected"),
    [
        # tanh over four layers: σ_w = 1.111430, σ_b = 0.0433025, q = 0.1370822, and √(q − σ_b²) = 0.3677052.
        (of(TANH, 8, 100), 4, LayerDraw("delta_orthogonal", 0.1111430, "1.11/√100", 0.0433025)),
        (of(TANH, 8, 100, role="input"), 4, LayerDraw("delta_orthogonal", 0.03677052, "0.368/√100", 0.0433025)),
        (of(TANH, 8, 100), 1, LayerDraw("delta_orthogonal", 0.1265914, "1.27/√100", 0.1627136)),
        # ReLU has no isometry, and a cell none of its own.
        (of(RELU), 4, LayerDraw("delta_orthogonal", 1 / 4, "1.41/√32")),
        (of(TANH, 25, 25, kind="recurrent"), 4, LayerDraw("delta_orthogonal", 1 / 5, "1/√25")),
    ],
)
def test_an_isometry_suits_the_number_of_weights(layer: Layer, depth: int, expected: LayerDraw) -> None:
    assert_same(formulas.isometric(layer, mlp(TANH, depth=depth)), expected)


@pytest.mark.parametrize(
    ("layer", "graph", "std", "worked"),
    [
        (of(SINE, inner=48, role="input"), mlp(SINE), 1 / 48 / math.sqrt(3), "1/(48·√3)"),  # U(−1/48, 1/48)
        (of(SINE, inner=50), mlp(SINE), 0.2 / 30, "√(2/50)/30"),  # U(−√(6/50)/30, √(6/50)/30) has this std
        (of(Activation(), inner=50, role="output"), mlp(SINE), 0.2 / 30, "√(2/50)/30"),  # ω of the sines before it
        (of(Activation(), inner=50, role="output"), mlp(LEAKY), 0.2, "√(2/50)/1"),  # no sines: ω = 1
        (of(Activation("sin"), inner=50), GRAPH, 0.2, "√(2/50)/1"),
        (of(Activation("sin", (10.0,)), inner=50), mlp(SINE), 0.02, "√(2/50)/10"),  # its own ω comes first
    ],
)
def test_sines_know_their_frequency_and_their_place(layer: Layer, graph: Graph, std: float, worked: str) -> None:
    """Biases are U(−1/√n, 1/√n), whose variance is 1/(3·n)."""
    bias_std = math.sqrt(1 / (3 * layer.fan_in))
    assert_same(formulas.siren(layer, graph), LayerDraw("uniform", std, worked, bias_std))


def test_the_owner_s_draw_needs_no_number() -> None:
    draw = formulas.owner(LAYERS["wide"], GRAPH)
    assert (draw.distribution, math.isnan(draw.std), draw.worked) == ("keep", True, "")


# Mimetic attention: a fused weight and the one that follows it


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({}, True),
        ({"qkv": {"heads": 1}, "attention_out": {"heads": 1}}, True),
        ({"hidden": {"keep": "frozen"}}, True),  # what is outside does not matter
        ({"qkv": {"heads": 0}, "attention_out": {"heads": 0}}, False),
        ({"qkv": {"heads": 4}}, False),
        ({"qkv": {"attention": ""}, "attention_out": {"attention": ""}}, False),
        ({"qkv": {"cross": True}, "attention_out": {"cross": True}}, False),
        ({"attention_out": {"keep": "frozen"}}, False),
        ({"attention_out": {"shape": (16, 32)}}, False),
        ({"qkv": {"shape": (32, 16), "slices": 2}}, False),  # keys and values, square but not three
    ],
)
def test_self_attention_is_mimetic_where_all_its_weights_are_square_and_free(
    changes: dict[str, dict[str, Any]], both: bool
) -> None:
    """Of two blocks only the first is changed; the second is mimetic in any case."""
    block, other = transformer().layers[1:6], transformer().layers[6:11]
    layers = [dataclasses.replace(layer, **changes.get(layer.role, {})) for layer in block]
    graph = Graph((*layers, *other))
    found = {layer.name: draw.distribution for layer in graph.layers if (draw := formulas.mimetic(layer, graph))}
    first = {"block.0.qkv.weight": "mimetic_qkv", "block.0.out.weight": "mimetic_out"}
    second = {"block.1.qkv.weight": "mimetic_qkv", "block.1.out.weight": "mimetic_out"}
    assert found == (first | second if both else second)
