from __future__ import annotations

import math

import pytest
from graphs import RELU, TANH, linear, mlp

from autoinit.activations import Activation
from autoinit.errors import RecipeError
from autoinit.graph import Graph, Layer
from autoinit.schemes import SCHEMES, SEARCHED, rows_and_columns, scheme


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("he_normal", math.sqrt(2 / 100)),
        ("he_uniform", math.sqrt(2 / 100)),
        ("xavier_normal", math.sqrt(2 / 150)),
        ("lecun_normal", 0.1),
        ("truncated_normal_002", 0.02),
        ("orthogonal", math.sqrt(2) / 10),
    ],
)
def test_std(name: str, std: float) -> None:
    assert scheme(name).std(linear("w", 50, 100, activation=RELU)) == pytest.approx(std, rel=1e-9)


def test_he_takes_the_gain_of_the_layer_s_own_activation() -> None:
    assert scheme("he_normal").std(linear("w", 50, 100, activation=TANH)) == pytest.approx(0.159254, rel=1e-4)


def test_recurrent_matrices_have_gain_one() -> None:
    layer = linear("w", 40, 10, activation=TANH, kind="recurrent", slices=4)
    assert scheme("he_normal").std(layer) == pytest.approx(1 / math.sqrt(10))


def test_siren_knows_first_layer_and_omega() -> None:
    sine = Activation("sin", (30.0,))
    first, later = linear("a", 64, 2, role="input", activation=sine), linear("b", 64, 64, activation=sine)
    # U(−b, b) has std b/√3.
    assert scheme("siren").std(first) * math.sqrt(3) == pytest.approx(1 / 2)
    assert scheme("siren").std(later) * math.sqrt(3) == pytest.approx(math.sqrt(6 / 64) / 30)


def test_siren_is_for_networks_of_sines() -> None:
    assert not SCHEMES["siren"].fits(mlp())
    assert SCHEMES["siren"].fits(mlp(activation=Activation("sin", (30.0,))))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (linear("w", 50, 100), (50, 100)),
        (linear("w", 48, 16, slices=3), (16, 16)),
        (
            Layer(name="w", shape=(8, 2, 3, 3), kind="conv", role="hidden", out_axes=(0,), in_axes=(1, 2, 3), groups=4),
            (2, 18),
        ),
        (
            Layer(
                name="w",
                shape=(8, 5, 3),
                kind="conv_transposed",
                role="hidden",
                out_axes=(1,),
                in_axes=(0, 2),
                groups=2,
            ),
            (5, 12),
        ),
    ],
)
def test_size_of_one_matrix(layer: Layer, expected: tuple[int, int]) -> None:
    assert rows_and_columns(layer) == expected


def test_every_row_states_formula_source_and_purpose() -> None:
    for row in SCHEMES.values():
        assert row.formula
        assert row.source
        assert row.purpose
    assert set(SEARCHED) <= set(SCHEMES)


def test_unknown_name() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'xavier_normal'"):
        scheme("xavier_norml")


def test_graphs_without_sines_do_not_offer_siren() -> None:
    assert not SCHEMES["siren"].fits(Graph(()))
