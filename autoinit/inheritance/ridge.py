"""Ridge regression in closed form, its ridge chosen by generalized cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = torch.logspace(-12, 3, 76, dtype=torch.float64)
"""Ridges that are tried, in the largest eigenvalue of the features' second moments."""


@dataclass(frozen=True)
class Ridge:
    """A linear map from features to targets.

    Attributes:
        weight: [outputs, inputs].
        bias: [outputs]; zeros where it was fitted through zero.
        ridge: λ, in the units of XᵀX.
        explained: share of the targets' variance that it explains by generalized cross-validation; negative for worse
            than a constant.
    """

    weight: Tensor
    bias: Tensor
    ridge: float
    explained: float


def ridge(features: Tensor, targets: Tensor, *, centred: bool) -> Ridge:
    """Returns W = (XᵀX + λI)⁻¹ XᵀY with the λ of the smallest error by generalized cross-validation.

    That is n ‖Y − XW‖² / (n − k)², with n rows and k the trace of X (XᵀX + λI)⁻¹ Xᵀ, plus one for a bias (Golub,
    Heath & Wahba 1979). All ridges are tried on one eigendecomposition of XᵀX.

    Args:
        features: X, [rows, inputs], float64.
        targets: Y, [rows, outputs], float64.
        centred: with a bias, which takes up the means of both; without, through zero.
    """
    rows = len(features)
    centre = features.mean(0) if centred else torch.zeros(features.shape[1], dtype=torch.float64)
    middle = targets.mean(0) if centred else torch.zeros(targets.shape[1], dtype=torch.float64)
    x, y = features - centre, targets - middle
    sizes, axes = torch.linalg.eigh(x.T @ x)
    sizes = sizes.clamp_min(0.0)
    along = axes.T @ (x.T @ y)
    ridges = RIDGES * max(float(sizes[-1]), torch.finfo(torch.float64).tiny)
    kept = sizes[:, None] + ridges  # [inputs, ridges]
    squares = along.square().sum(1)[:, None]
    total = float(y.square().sum())
    rest = (total - 2 * (squares / kept).sum(0) + (squares * sizes[:, None] / kept.square()).sum(0)).clamp_min(0.0)
    free = rows - int(centred) - (sizes[:, None] / kept).sum(0)
    errors = torch.where(free > 0, rows * rest / free.square(), torch.inf)
    best = int(errors.argmin())
    weight = (axes @ (along / kept[:, best : best + 1])).T
    explained = 1 - float(errors[best]) / (total / rows) if total > 0 else 0.0
    return Ridge(weight, middle - weight @ centre, float(ridges[best]), explained)
