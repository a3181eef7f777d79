from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch
from helpers import observed
from once import mnist
from torch import Tensor, nn

import autoinit
from autoinit.coordinates import FLAT, MUP, WIDTHS, CoordinateCheck, Coordinates, coordinate_check, slope
from autoinit.errors import ArgumentError, OptimizerError, RecipeError
from autoinit.recipes.recipe import Recipe

STANDARD = Recipe(base="he_normal", head="zero")
"""What `MUP` is at its base width, with one learning rate for all."""

TOLERANCE = FLAT / 2
"""A quarter of the smallest exponent that theory knows: corrections of finite width, and six batches of 64 digits."""


def mlp(width: int, depth: int = 3) -> nn.Sequential:
    sizes = [784, *[width] * depth, 10]
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*(part for layer in layers for part in layer))[:-1]


@pytest.fixture(scope="module")
def digits() -> list[tuple[Tensor, Tensor]]:
    """Six batches of 64 MNIST digits, of zero mean and unit variance."""
    images, labels = mnist()
    pixels = torch.tensor(images, dtype=torch.float32)
    pixels = (pixels - pixels.mean()) / pixels.std()
    some = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[: 6 * 64]
    return [(pixels[part], torch.tensor(labels)[part]) for part in some.split(64)]


@pytest.fixture(scope="module")
def checks(digits: list[tuple[Tensor, Tensor]]) -> dict[tuple[str, str], CoordinateCheck]:
    """The check of a ReLU network by parametrization and optimizer, widths 64 … 1024."""
    return {
        (name, optimizer): coordinate_check(mlp, digits, recipe=recipe, optimizer=optimizer, seeds=(0, 1))
        for name, recipe in {"mup": MUP, "standard": STANDARD}.items()
        for optimizer in ("adam", "sgd")
    }


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_coordinates_are_flat_under_mup(checks: dict[tuple[str, str], CoordinateCheck], optimizer: str) -> None:
    check = checks["mup", optimizer]
    assert check.widths == WIDTHS == (64, 128, 256, 512, 1024)
    assert [layer.role for layer in check.layers] == ["input", "hidden", "hidden", "output"]
    assert max(abs(layer.slope) for layer in check.layers) <= TOLERANCE, str(check)
    assert check.flat


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_coordinates_are_not_flat_under_the_standard_parametrization(
    checks: dict[tuple[str, str], CoordinateCheck], optimizer: str
) -> None:
    check = checks["standard", optimizer]
    head = check.layers[-1]
    assert head.slope >= 0.5 - TOLERANCE, str(check)  # in theory 1, less what the loss's curvature takes
    assert head.verdict == "growing"
    assert not check.flat


def test_both_are_the_same_at_the_base_width(checks: dict[tuple[str, str], CoordinateCheck]) -> None:
    for optimizer in ("adam", "sgd"):
        mup, standard = checks["mup", optimizer].layers, checks["standard", optimizer].layers
        assert [layer.changes[0] for layer in mup] == [layer.changes[0] for layer in standard]
        assert [layer.changes[-1] for layer in mup] != [layer.changes[-1] for layer in standard]


def test_one_small_step_has_the_exponents_of_theory(digits: list[tuple[Tensor, Tensor]]) -> None:
    """One step of SGD in the standard parametrization: head width^1, first layer width^(−½)."""
    check = coordinate_check(mlp, digits, recipe="he_normal", optimizer="sgd", steps=1, lr=1e-3, seeds=(0, 1))
    first, *_, head = check.layers
    assert first.slope == pytest.approx(-0.5, abs=TOLERANCE)
    assert head.slope == pytest.approx(1.0, abs=2 * TOLERANCE)
    assert (first.verdict, head.verdict) == ("vanishing", "growing")


def test_a_random_head_hides_the_exponent_while_its_first_outputs_shrink(digits: list[tuple[Tensor, Tensor]]) -> None:
    """Why the check starts the head at zero: the same steps with a random one move narrow networks further."""
    small: dict[str, Any] = {"optimizer": "sgd", "lr": 0.01, "seeds": (0, 1), "widths": (64, 256, 1024)}
    random, zero = (coordinate_check(mlp, digits, recipe=recipe, **small).layers[-1] for recipe in ("mup", MUP))
    assert random.start_slope == pytest.approx(-0.5, abs=TOLERANCE)
    assert random.slope < -FLAT / 2 <= zero.slope


def test_a_start_that_grows_is_told(digits: list[tuple[Tensor, Tensor]]) -> None:
    """One std for all widths: outputs start like √width, as a sum of that many terms does."""
    check = coordinate_check(lambda n: mlp(n, 1), digits, recipe=Recipe(base="normal", widths="mup"), widths=(64, 256))
    assert check.layers[-1].start_slope == pytest.approx(0.0, abs=0.1)  # √width of the sum, 1/√width of the head
    plain = coordinate_check(lambda n: mlp(n, 1), digits, recipe="normal", widths=(64, 256), lr=1e-9)
    assert plain.layers[-1].start_slope == pytest.approx(0.5, abs=0.1)
    assert (plain.layers[-1].verdict, plain.layers[0].verdict) == ("growing", "flat")


def test_numbers_are_what_a_loop_by_hand_finds(digits: list[tuple[Tensor, Tensor]]) -> None:
    check = coordinate_check(mlp, digits[:1], widths=(16, 32), steps=2, lr=0.01, seeds=(3,))
    model, (images, labels) = mlp(32), digits[0]
    plan = autoinit.apply_(model, check.recipe, digits[:1], seed=3)
    assert check.recipe == Recipe(base="he_normal", widths="mup", head="zero", base_width=16)
    before = [model[:1](images), model(images)]
    optimizer = torch.optim.Adam(plan.param_groups(model, 0.01))
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    first, last = (
        (after - old).abs().mean().item() for after, old in zip((model[:1](images), model(images)), before, strict=True)
    )
    assert check.layers[0].changes[1] == pytest.approx(first, rel=1e-4)
    assert check.layers[-1].changes[1] == pytest.approx(last, rel=1e-4)
    assert check.layers[0].starts[1] == pytest.approx(before[0].abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("values", "exponent"),
    [
        ((1.0, 2.0, 4.0), 1.0),
        ((3.0, 3.0, 3.0), 0.0),
        ((4.0, 2.0, 1.0), -1.0),
        ((0.0, 0.0, 0.0), 0.0),
        ((1.0, 0.0, 0.0), -math.inf),
        ((1.0, math.nan, 1.0), math.inf),
        ((1.0, 1.0, math.inf), math.inf),
    ],
)
def test_slope(values: tuple[float, ...], exponent: float) -> None:
    assert slope((8, 16, 32), values) == pytest.approx(exponent, abs=1e-12)


@pytest.mark.parametrize(
    ("slope", "start", "verdict"),
    [
        (0.24, 0.0, "flat"),
        (0.26, 0.0, "growing"),
        (-0.26, 0.0, "vanishing"),
        (0.0, 0.5, "growing"),
        (0.0, -0.5, "flat"),
    ],
)
def test_verdict(slope: float, start: float, verdict: str) -> None:
    assert Coordinates("w", "hidden", (1.0,), (1.0,), start, slope).verdict == verdict


class Recurrent(nn.Module):
    """An LSTM, whose products happen out of sight, and a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(28, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 28, 28))[0][:, -1])


def test_text_and_json(digits: list[tuple[Tensor, Tensor]]) -> None:
    check = coordinate_check(Recurrent, digits, widths=(8, 16), steps=1, seeds=(0,), optimizer=torch.optim.SGD)
    lines = str(check).splitlines()
    assert lines[0].startswith("Mean change of each layer's outputs after 1 step of SGD, lr 0.1, by width (he_normal")
    assert lines[2].split() == ["weight", "role", "8", "16", "width^", "start", "verdict"]
    assert lines[4].startswith("head.weight")
    assert lines[-1] == "Not measured: outputs of cell.weight_ih_l0, cell.weight_hh_l0."
    data = json.loads(check.to_json())
    assert (data["widths"], data["flat"], data["layers"][0]["verdict"]) == (
        [8, 16],
        check.flat,
        check.layers[0].verdict,
    )


class Tied(nn.Module):
    """An embedding whose weight is the head's too."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(10, width), nn.Linear(width, width), nn.Linear(width, 10, False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x)).relu())


def test_a_tied_head_is_seen_to_grow(digits: list[tuple[Tensor, Tensor]]) -> None:
    labels = [part for _, part in digits]
    check = coordinate_check(Tied, list(itertools.pairwise(labels)), widths=(64, 128, 256), seeds=(0,))
    assert [(layer.name, layer.role) for layer in check.layers] == [
        ("embed.weight", "embedding"),
        ("body.weight", "hidden"),
        ("head.weight", "output"),
    ]
    head = check.layers[-1]
    assert head.start_slope == pytest.approx(0.5, abs=TOLERANCE)  # width terms of one std
    assert head.verdict == "growing"


def test_what_is_not_flat_is_named_with_a_remedy(checks: dict[tuple[str, str], CoordinateCheck]) -> None:
    assert '→ autoinit.apply_(model, "mup", data) with plan.param_groups' in str(checks["standard", "adam"])
    assert str(checks["mup", "adam"]).endswith("so one learning rate serves them all.")


def test_divergence_is_growth(digits: list[tuple[Tensor, Tensor]]) -> None:
    check = coordinate_check(mlp, digits, recipe="he_normal", optimizer="sgd", lr=1e20, widths=(8, 16), seeds=(0,))
    assert check.layers[-1].slope == math.inf
    assert json.loads(check.to_json())["layers"][-1]["slope"] is None


def test_random_state_is_put_back_and_dropout_is_no_change(digits: list[tuple[Tensor, Tensor]]) -> None:
    def noisy(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(784, width), nn.Dropout(0.5), nn.Linear(width, 10))

    before = observed(nn.Sequential())
    check = coordinate_check(noisy, digits, recipe="as_is", widths=(8, 16), steps=1, lr=1e-30, seeds=(0,))
    assert observed(nn.Sequential())["torch generator"] == before["torch generator"]
    assert [layer.changes for layer in check.layers] == [(0.0, 0.0), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"widths": (64,)}, ArgumentError, r"two or more different whole numbers from 1\. Got \(64,\)"),
        ({"widths": (0, 64)}, ArgumentError, "from 1"),
        ({"steps": 0}, ArgumentError, "One step and one seed are the least. Got steps = 0"),
        ({"seeds": ()}, ArgumentError, r"seeds = \(\)"),
        ({"optimizer": "muon"}, OptimizerError, "one of adam, adamw, sgd, or a class of torch.optim. Got 'muon'"),
        ({"recipe": "mupp"}, RecipeError, "Did you mean 'mup'"),
        ({"make_model": lambda n: mlp(8, depth=n // 8)}, ArgumentError, r"only one of them has the weights 4\.weight"),
        ({"make_model": lambda n: mlp(8)}, ArgumentError, "are of one width; the argument must set it"),
        ({"make_model": mlp(8)}, ArgumentError, "returns a new model of it. Got a model"),
    ],
)
def test_wrong_arguments_are_refused(
    digits: list[tuple[Tensor, Tensor]], arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    given: dict[str, Any] = {"make_model": mlp, "widths": (8, 16), "seeds": (0,), **arguments}
    with pytest.raises(error, match=said):
        coordinate_check(data=digits, **given)
