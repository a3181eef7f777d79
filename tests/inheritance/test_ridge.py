"""Ridge regression beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge, RidgeCV

from autoinit.inheritance.ridge import RIDGES, ridge


def diabetes() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = load_diabetes(return_X_y=True)
    return torch.from_numpy(x), torch.from_numpy(y)[:, None]


@pytest.mark.parametrize("centred", [True, False])
def test_weights_are_those_of_scikit_learn(centred: bool) -> None:
    x, y = diabetes()
    y = torch.cat((y, y.square() / 100), 1)
    found = ridge(x, y, centred=centred)
    reference = Ridge(alpha=found.ridge, fit_intercept=centred, solver="svd").fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight.numpy(), reference.coef_, rtol=1e-8)
    np.testing.assert_allclose(found.bias.numpy(), np.broadcast_to(reference.intercept_, 2), rtol=1e-8)
    assert found.bias.any() == centred


def test_the_ridge_is_as_good_as_the_one_that_leaving_each_row_out_chooses() -> None:
    x, y = diabetes()
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(len(x), 150)) * 0.05)
    x = torch.cat((x, noise), 1)[:200]
    y = y[:200]
    found = ridge(x, y, centred=True)
    alphas = (RIDGES * torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)))[-1]).numpy()
    left_out = RidgeCV(alphas=alphas).fit(x.numpy(), y.numpy().ravel())

    def error(alpha: float) -> float:
        """Returns the mean squared error of rows left out, each by a ridge regression on the others."""
        centred = (x - x.mean(0)).numpy()
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(160), centred.T) + 1 / len(x)
        rest = y.numpy().ravel() - hat @ y.numpy().ravel()
        return float(((rest / (1 - np.diag(hat))) ** 2).mean())

    assert error(found.ridge) < 1.02 * error(left_out.alpha_)
    assert error(found.ridge) < 0.8 * error(1e-6 * found.ridge), "without a ridge it is worse"
    assert abs(1 - error(found.ridge) / float(y.var(correction=0)) - found.explained) < 0.05


def test_fewer_rows_than_columns_and_constants_are_fitted() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 40, generator=generator, dtype=torch.float64)
    few = ridge(x, x[:, :1], centred=True)
    assert few.weight.isfinite().all()
    constant = ridge(x, torch.full((8, 1), 3.0, dtype=torch.float64), centred=True)
    torch.testing.assert_close(x @ constant.weight.T + constant.bias, torch.full((8, 1), 3.0, dtype=torch.float64))
    dead = ridge(torch.zeros(8, 4, dtype=torch.float64), x[:, :1], centred=True)
    assert not dead.weight.any()
    torch.testing.assert_close(dead.bias, x[:, :1].mean(0))
