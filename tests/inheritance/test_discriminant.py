"""Linear discriminants beside scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor
from torch.nn import functional as F

from autoinit.inheritance import discriminant as module
from autoinit.inheritance.discriminant import SHARES, discriminant


def digits(rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns so many digits of 64 points and their labels, and all others with theirs, in an order of no meaning."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, y = torch.from_numpy(images[order]), torch.from_numpy(labels[order]).long()
    return x[:rows], y[:rows], x[rows:], y[rows:]


class Fixed:
    """An estimator of covariances for scikit-learn that has its answer."""

    def __init__(self, covariance: np.ndarray) -> None:
        self.covariance_ = covariance

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"covariance": self.covariance_}

    def fit(self, x: np.ndarray) -> Fixed:
        return self


@pytest.mark.parametrize("rows", [50, 600])
def test_directions_are_those_of_scikit_learn(rows: int) -> None:
    x, y, rest, _ = digits(rows)
    found = discriminant(x, y, 10)
    assert found.share in SHARES
    centred = (x - torch.stack([x[y == label].mean(0) for label in range(10)])[y]).numpy()
    plain = centred.T @ centred / rows
    shrunk = (1 - found.share) * plain + found.share * np.trace(plain) / 64 * np.eye(64)
    reference = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Fixed(shrunk)).fit(x.numpy(), y.numpy())
    log_shares = np.log(np.bincount(y) / rows)
    ours = (rest @ found.weight.T + found.bias).numpy() - log_shares
    theirs = found.factor * (reference.decision_function(rest.numpy()) - log_shares)
    ours, theirs = (scores - scores.mean(1, keepdims=True) for scores in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-8 * abs(theirs).max())


@pytest.mark.parametrize("rows", [100, 400])
def test_rows_left_out_foretell_new_ones(rows: int) -> None:
    x, y, rest, truth = digits(rows)
    found = discriminant(x, y, 10)
    scores = rest @ found.weight.T + found.bias
    loss = float(F.cross_entropy(scores, truth))
    assert abs(found.right - float((scores.argmax(1) == truth).double().mean())) < 0.06
    assert abs(found.loss / loss - 1) < 0.4
    own = x @ found.weight.T + found.bias
    assert float(F.cross_entropy(own, y)) < 0.7 * found.loss, "its own rows would make it look better than it is"


def test_no_other_share_is_much_better_on_new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, rest, truth = digits(60)

    def loss() -> float:
        found = discriminant(x, y, 10)
        return float(F.cross_entropy(rest @ found.weight.T + found.bias, truth))

    chosen, others = loss(), []
    for share in SHARES:
        monkeypatch.setattr(module, "SHARES", (share,))
        others.append(loss())
    assert chosen < 1.1 * min(others)
    assert chosen < 0.8 * max(others)


def test_the_order_of_rows_decides_nothing_but_the_folds() -> None:
    x, y, _, _ = digits(300)
    by_class = y.argsort()
    found, sorted_ = discriminant(x, y, 10), discriminant(x[by_class], y[by_class], 10)
    assert abs(found.loss - sorted_.loss) < 0.15 * found.loss, "each fold has rows of each class"


def test_a_class_without_rows_is_in_the_middle() -> None:
    x, y, _, _ = digits(300)
    kept = y != 4
    found = discriminant(x[kept], y[kept], 10)
    assert not found.weight[4].any()
    middle = found.weight @ x[kept].mean(0) + found.bias
    assert middle[4] == pytest.approx(np.log(0.5 / int(kept.sum())))


@pytest.mark.parametrize("rows", [1, 2, 10])
def test_few_rows_and_equal_features_give_numbers(rows: int) -> None:
    x, y, _, _ = digits(300)
    first = torch.stack([(y == label).nonzero()[0, 0] for label in range(10)])[:rows]
    found = discriminant(x[first], y[first], 10)
    assert bool((x[first] @ found.weight.T + found.bias).argmax(1).eq(y[first]).all())
    assert discriminant(torch.ones(6, 3).double(), torch.arange(6) % 2, 2).weight.isfinite().all()
