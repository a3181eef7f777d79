from __future__ import annotations

import math

import pytest
from graphs import RELU, TANH, linear, lstm, mlp, transformer

from autoinit.activations import Activation
from autoinit.errors import RecipeError
from autoinit.graph import Graph, Layer
from autoinit.recipes.formulas import rows_and_columns
from autoinit.recipes.schemes import SCHEMES, scheme

NOTHING = Graph(())


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
    assert scheme(name).draw(linear("w", 50, 100, activation=RELU), NOTHING).std == pytest.approx(std, rel=1e-9)


def test_he_takes_the_gain_of_the_layer_s_own_activation() -> None:
    assert scheme("he_normal").draw(linear("w", 50, 100, activation=TANH), NOTHING).std == pytest.approx(
        0.159254, rel=1e-4
    )


def test_recurrent_matrices_have_gain_one() -> None:
    layer = linear("w", 40, 10, activation=TANH, kind="recurrent", slices=4)
    assert scheme("he_normal").draw(layer, NOTHING).std == pytest.approx(1 / math.sqrt(10))


def test_siren_knows_first_layer_and_omega() -> None:
    sine = Activation("sin", (30.0,))
    first, later = linear("a", 64, 2, role="input", activation=sine), linear("b", 64, 64, activation=sine)
    # U(−b, b) has std b/√3.
    assert scheme("siren").draw(first, NOTHING).std * math.sqrt(3) == pytest.approx(1 / 2)
    assert scheme("siren").draw(later, NOTHING).std * math.sqrt(3) == pytest.approx(math.sqrt(6 / 64) / 30)


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


def test_unknown_name() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'xavier_normal'"):
        scheme("xavier_norml")


def test_a_saved_plans_older_name_is_understood() -> None:
    assert scheme("truncated_normal_002").name == "truncated_normal"


SINES = mlp(activation=Activation("sin", (30.0,)))
ALWAYS = {"as_is", "he_normal", "xavier_normal", "lecun_normal", "truncated_normal", "orthogonal"}


@pytest.mark.parametrize(
    ("graph", "special"),
    [
        (mlp(), {"looks_linear", "edge_of_chaos"}),
        (mlp(activation=TANH), {"dynamical_isometry", "edge_of_chaos"}),
        (SINES, {"siren", "dynamical_isometry", "edge_of_chaos"}),
        (transformer(), {"hadamard"}),
        (lstm(), set()),
    ],
    ids=["relu", "tanh", "sines", "transformer", "lstm"],
)
def test_the_search_is_offered_what_suits(graph: Graph, special: set[str]) -> None:
    assert {name for name, row in SCHEMES.items() if row.searched(graph)} == ALWAYS | special
