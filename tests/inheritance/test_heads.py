"""Heads in closed form beside scikit-learn's, and on digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import observed
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from autoinit.errors import DataError
from autoinit.inheritance.given import Given
from autoinit.inheritance.heads import class_means, least_squares
from autoinit.task.assign import assign


def digits() -> tuple[Tensor, Tensor]:
    """Returns 1,797 digits of 8 × 8 points, in an order of no meaning, and their labels."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return torch.from_numpy(images[order]).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(labels[order]).long()


def net(outputs: int = 10, **settings: Any) -> nn.Sequential:
    """Returns a network whose body was drawn at random and never trained."""
    body = (nn.Conv2d(1, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3, stride=2), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(96, outputs, **settings))


def split(x: Tensor, y: Tensor, rows: int, size: int = 50) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x[:rows].split(size), y[:rows].split(size), strict=True))


def give(model: nn.Module, given: Given) -> None:
    for name, value in given.values.items():
        assign(model, name, value)


@torch.no_grad()
def judged(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Returns the share that is right, and the cross-entropy."""
    scores = model.eval()(x)
    return float((scores.argmax(1) == y).float().mean()), float(F.cross_entropy(scores, y))


@pytest.mark.parametrize("rows", [40, 200, 1200])
def test_class_means_are_right_and_as_sure_as_they_are_right_before_any_training(rows: int) -> None:
    x, y = digits()
    model = net()
    chance, constant = judged(model, x[1200:], y[1200:])
    give(model, class_means(model, split(x, y, rows), "5"))
    right, loss = judged(model, x[1200:], y[1200:])
    assert chance < 0.3
    assert right > {40: 0.6, 200: 0.8, 1200: 0.93}[rows]
    assert loss < {40: 1.7, 200: 0.7, 1200: 0.25}[rows] < constant
    with torch.no_grad():
        scores = model(x[1200:])
    best = min(float(F.cross_entropy(2**power * scores, y[1200:])) for power in np.linspace(-4, 4, 41))
    # With four rows of a class, a fifth less to go by makes the rows that are left out look harder than new ones are.
    assert loss < (1.35 if rows == 40 else 1.15) * best, "neither colder nor warmer would be much better"


def test_nothing_is_changed_and_only_the_head_is_given() -> None:
    x, y = digits()
    model = nn.Sequential(*net()[:5], nn.Dropout(), nn.Linear(96, 10))
    before = observed(model)
    given = class_means(model, split(x, y, 200), "6")
    assert observed(model) == before
    assert {name: value.shape for name, value in given.values.items()} == {"6.weight": (10, 96), "6.bias": (10,)}
    assert given.notes == ()
    assert "on rows left out" in given.why["6.bias"]


def test_batches_and_their_order_make_no_difference() -> None:
    x, y = digits()
    model = net()
    one = class_means(model, [(x[:300], y[:300])], "5")
    many = class_means(model, split(x, y, 300, size=7), "5")
    for name in one.values:
        torch.testing.assert_close(one.values[name], many.values[name], rtol=1e-3, atol=1e-4)


def test_shares_of_classes_are_in_the_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(1000) % 10 == 0).long()  # one in ten
    model = nn.Linear(3, 2)
    give(model, class_means(model, [(torch.randn(1000, 3, generator=generator), y)], ""))
    with torch.no_grad():
        shares = model(torch.randn(1000, 3, generator=generator)).softmax(1).mean(0)
    torch.testing.assert_close(shares, torch.tensor([0.9, 0.1]), atol=0.02, rtol=0)


def test_a_class_without_rows_has_zeros_and_is_hardly_ever_chosen() -> None:
    x, y = digits()
    model = net(12)
    batches = [(a[b != 3], b[b != 3]) for a, b in split(x, y, 600)]
    given = class_means(model, batches, "5")
    weight = given.values["5.weight"]
    assert [row for row in range(12) if not weight[row].any()] == [3, 10, 11]
    assert given.notes == ("There is no row of 3, 10, 11: of such classes the head's weights are zero.",)
    give(model, given)
    with torch.no_grad():
        chosen = model(x[600:][y[600:] != 3]).argmax(1)
    assert float(torch.isin(chosen, torch.tensor([3, 10, 11])).float().mean()) < 0.05
    assert float((chosen == y[600:][y[600:] != 3]).float().mean()) > 0.85


def test_one_output_is_for_two_classes() -> None:
    x, y = digits()
    kept = y < 2
    x, y = x[kept], y[kept]
    two, one = net(2), net(1)
    one[:5].load_state_dict(two[:5].state_dict())
    for model in (two, one):
        give(model, class_means(model, split(x, y, 200), "5"))
    with torch.no_grad():
        torch.testing.assert_close(one(x).sigmoid()[:, 0], two(x).softmax(1)[:, 1], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert ((one(x[200:])[:, 0] > 0).long() == y[200:]).float().mean() > 0.95


def test_a_head_without_bias_gets_the_weights_alone() -> None:
    x, y = digits()
    model = net(bias=False)
    given = class_means(model, split(x, y, 600), "5")
    assert list(given.values) == ["5.weight"]
    assert given.notes == ("5 has no bias, so that the shares of the classes are left out.",)


def test_a_parametrized_head_and_half_precision_are_given_what_they_take() -> None:
    x, y = digits()
    model = net()
    plain = class_means(model, split(x, y, 300), "5").values
    parametrizations.weight_norm(model[5])
    given = class_means(model, split(x, y, 300), "5").values
    torch.testing.assert_close(given["5.weight"], plain["5.weight"])
    half = class_means(model.bfloat16(), split(x.bfloat16(), y, 300), "5").values
    assert half["5.weight"].dtype == torch.bfloat16


def test_rows_that_are_left_out_of_the_loss_are_left_out() -> None:
    x, y = digits()
    model = net()
    padded = torch.cat((y[:300], torch.full((50,), -100)))
    given, plain = class_means(model, [(x[:350], padded)], "5"), class_means(model, [(x[:300], y[:300])], "5")
    torch.testing.assert_close(given.values["5.weight"], plain.values["5.weight"])


def test_one_row_of_each_class_gives_the_nearest_mean() -> None:
    x, y = digits()
    first = torch.stack([(y == label).nonzero()[0, 0] for label in range(10)])
    model = net()
    given = class_means(model, [(x[first], y[first])], "5")
    give(model, given)
    assert judged(model, x, y)[0] > 0.4


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(5), r"whole number for each row, its class. Got targets of shape \[5\] and torch.float32"),
        (torch.zeros(5, 10), "For numbers to be predicted use least squares"),
        (torch.zeros(5, 10, dtype=torch.long), "whole number for each row"),
        (torch.full((5,), 10), "10 outputs, for labels from 0 to 9. Got 10"),
        (torch.full((5,), -1), "Got -1"),
        (torch.full((5,), -100), "No row has a label other than -100"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets: Tensor, words: str) -> None:
    model = net()
    before = observed(model)
    with pytest.raises(DataError, match=words):
        class_means(model, [(torch.zeros(5, 1, 8, 8), targets)], "5")
    assert observed(model) == before


def test_least_squares_predict_before_any_training() -> None:
    x, y = (torch.from_numpy(part).float() for part in load_diabetes(return_X_y=True))
    model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))
    before = observed(model)
    given = least_squares(model, list(zip(x[:300].split(50), y[:300].split(50), strict=True)), "2")
    assert observed(model) == before
    assert "300 rows, ridge" in given.why["2.weight"]
    give(model, given)
    with torch.no_grad():
        error = (model(x[300:])[:, 0] - y[300:]).square().mean() / y[300:].var()
    assert error < 0.6
    both = least_squares(nn.Linear(10, 2), [(x, torch.stack((y, -y), 1))], "").values
    torch.testing.assert_close(both["weight"][0], -both["weight"][1])


def test_least_squares_want_a_number_for_each_output() -> None:
    model = nn.Linear(4, 3)
    with pytest.raises(DataError, match=r"3 outputs, and rows have 1 targets\..* use class means"):
        least_squares(model, [(torch.zeros(5, 4), torch.zeros(5, dtype=torch.long))], "")
    with pytest.raises(DataError, match="Some targets are not finite"):
        least_squares(model, [(torch.ones(5, 4), torch.full((5, 3), torch.inf))], "")
