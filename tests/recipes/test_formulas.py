from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from graphs import RELU, TANH, linear, mlp
from torch import Tensor

from autoinit.activations import Activation
from autoinit.graph import Graph, Layer
from autoinit.initializers.draws import fill_
from autoinit.initializers.geometry import Geometry
from autoinit.recipes import formulas
from autoinit.recipes.formulas import LayerDraw, Rule, fan, gain, kernel_size, rows_and_columns

GRAPH = Graph(())


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


def test_sines_know_their_frequency_and_their_place() -> None:
    sine = Activation("sin", (30.0,))
    first, hidden, last = (
        formulas.siren(linear("w", 64, 48, role=role, activation=phi), GRAPH).std * math.sqrt(3)
        for role, phi in (("input", sine), ("hidden", sine), ("output", Activation()))
    )
    assert (first, hidden, last) == pytest.approx((1 / 48, math.sqrt(6 / 48) / 30, math.sqrt(6 / 48)))


def test_recurrent_cells_have_no_critical_point_of_their_own() -> None:
    cell = linear("w", 8, 8, activation=TANH, kind="recurrent")
    assert (formulas.critical(cell, GRAPH).bias_std, formulas.isometric(cell, mlp(TANH)).bias_std) == (0.0, 0.0)
    assert formulas.critical(cell, GRAPH).std == pytest.approx(8**-0.5)


def test_the_owner_s_draw_and_the_mean_need_no_chance() -> None:
    assert formulas.owner(LAYERS["wide"], GRAPH).distribution == "keep"
    assert formulas.average(LAYERS["wide"], GRAPH) == LayerDraw("constant", 1 / 32, "1/32")
