"""Linear discriminant analysis with a covariance and a temperature that rows left out have chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

SHARES = (0.01, 0.1, 0.4, 0.7, 0.95)
"""Shares of the covariance that are tried to be replaced by one that is the same in all directions."""

FOLDS = 5
"""Parts of the rows that are scored in turn by a discriminant made of the others."""

COLDEST, WARMEST = -12.0, 2.0
"""Powers of e between which the factor of the scores is sought."""

ABSENT = 0.5
"""Rows that a class without any is counted as having, so that its logarithm is a number."""


@dataclass(frozen=True)
class Discriminant:
    """Scores of classes, weight x + bias, whose softmax is as sure as it is right.

    Attributes:
        weight: [classes, inputs].
        bias: [classes].
        share: of the covariance that was replaced.
        factor: what the scores, without the classes' shares, were multiplied by.
        loss: cross-entropy on rows left out.
        right: share of the rows left out whose class is right.
    """

    weight: Tensor
    bias: Tensor
    share: float
    factor: float
    loss: float
    right: float


def discriminant(features: Tensor, labels: Tensor, classes: int) -> Discriminant:
    """Returns the scores f w_c·(x − μ) − ½ f w_c·(μ_c − μ) + log π_c with w_c = Σ⁻¹ (μ_c − μ), as weight and bias.

    μ_c is the mean of a class, μ of all, π_c the share of the class, and Σ the covariance inside of classes, in part
    replaced by a multiple of the identity (Friedman 1989, "Regularized Discriminant Analysis"). That part and the
    factor f are those of the smallest cross-entropy on rows left out: each fifth is scored by what the others give. On
    the rows that it was made of a discriminant is far too sure of itself.

    Args:
        features: [rows, inputs], float64.
        labels: [rows], from 0 to classes − 1.
        classes: number of them; one without rows has weights of zero, like one in the middle of all.
    """
    moments = _Moments.of(features, labels, classes)
    scores = _left_out(features, labels, classes)
    judged = {share: _factor(scores[share], moments.log_shares, labels) for share in SHARES}
    share = min(judged, key=lambda one: judged[one][1])
    factor, loss = judged[share]
    right = (factor * scores[share] + moments.log_shares).argmax(1) == labels
    weight, offset = moments.solved(share)
    bias = factor * offset - factor * weight @ moments.centre + moments.log_shares
    return Discriminant(factor * weight, bias, share, factor, loss, float(right.double().mean()))


@dataclass(frozen=True)
class _Moments:
    """What is needed of rows: mean of all, means of classes around it, covariance inside of classes, shares as logs."""

    centre: Tensor
    means: Tensor
    covariance: Tensor
    log_shares: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, classes: int) -> _Moments:
        counts = torch.bincount(labels, minlength=classes).double()
        centre = features.mean(0)
        sums = torch.zeros(classes, features.shape[1], dtype=torch.float64).index_add_(0, labels, features - centre)
        means = sums / counts.clamp_min(1.0)[:, None]  # a class without rows is in the middle of all
        apart = features - centre - means[labels]
        log_shares = (counts.clamp_min(ABSENT) / len(labels)).log()
        return cls(centre, means, apart.T @ apart / len(labels), log_shares)

    def solved(self, share: float) -> tuple[Tensor, Tensor]:
        """Returns weight [classes, inputs] and offset [classes] of the scores of features around the centre."""
        level = float(self.covariance.trace()) / len(self.covariance)
        identity = torch.eye(len(self.covariance), dtype=torch.float64)
        # One row of each class leaves nothing to measure: then the nearest mean is all that there is.
        spread = (1 - share) * self.covariance + share * level * identity if level > 0 else identity
        weight = torch.cholesky_solve(self.means.T, torch.linalg.cholesky(spread)).T
        return weight, -0.5 * (weight * self.means).sum(1)


def _left_out(features: Tensor, labels: Tensor, classes: int) -> dict[float, Tensor]:
    """Returns share → the scores of all rows, each by a discriminant that was made without it; zeros for a single row.

    Rows of a class go to the folds in turn, in whatever order they come.
    """
    scores = {share: torch.zeros(len(features), classes, dtype=torch.float64) for share in SHARES}
    order = torch.empty_like(labels)
    order[labels.argsort(stable=True)] = torch.arange(len(labels))
    folds = min(FOLDS, len(features)) if len(features) > 1 else 0
    for fold in range(folds):
        held = order % folds == fold
        moments = _Moments.of(features[~held], labels[~held], classes)
        for share, found in scores.items():
            weight, offset = moments.solved(share)
            found[held] = (features[held] - moments.centre) @ weight.T + offset
    return scores


def _factor(scores: Tensor, log_shares: Tensor, labels: Tensor) -> tuple[float, float]:
    """Returns the factor of scores with the smallest cross-entropy, and that."""

    def loss(power: float) -> float:
        return float(F.cross_entropy(math.exp(power) * scores + log_shares, labels))

    found = minimize_scalar(loss, bounds=(COLDEST, WARMEST), method="bounded")
    return math.exp(found.x), loss(found.x)
