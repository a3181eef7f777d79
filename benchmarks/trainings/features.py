"""How far generated digits are from real ones: the Fréchet distance of their features.

As the FID is computed (Heusel et al. 2017, arXiv:1706.08500), with a small classifier of digits in the place of
Inception: both sets of features are taken for Gaussians, and the distance is ‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½).
The features are scaled so that the real digits' total variance is 1. So 0 is a perfect likeness in these features, and
1 is what a generator has that always draws one digit of average features.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .digits import held_back, orders, to_train_on

WIDTH = 16
"""Features: few, so that the covariance of some hundred digits is far from singular."""
PASSES, ROWS, RATE = 8, 64, 3e-3
WINDOW = 8
"""Batches that `Recent` looks back to: 512 digits of 64 a batch. A generator changes little in as many steps."""


class Classifier(nn.Module):
    """Tells digits apart by 16 features of them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 4 * 4, WIDTH),
        )  # fmt: skip
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, 10))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(images))
        return scores


@functools.cache
def classifier() -> Classifier:
    """Returns the classifier, trained on the digits to train on; the same one in every process."""
    x, y = to_train_on()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    order = orders(len(x), ROWS, torch.Generator().manual_seed(0))
    # It may be needed first inside of a block without gradients.
    with torch.enable_grad():
        for _ in range(PASSES * (len(x) // ROWS)):
            rows = next(order)
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@functools.cache
def _unit() -> float:
    """The root of the total variance that the real digits have in raw features."""
    with torch.no_grad():
        raw = classifier().features(to_train_on()[0]).double()
    return math.sqrt(float(raw.var(dim=0).sum()))


def features(images: Tensor) -> Tensor:
    """Returns the features of images [n, 1, 14, 14] as [n, 16] in float64; they carry no gradient."""
    with torch.no_grad():
        found: Tensor = classifier().features(images.detach()).double() / _unit()
    return found


@dataclass(frozen=True)
class Moments:
    """Two moments of features.

    Attributes:
        mean: [16].
        covariance: [16, 16], without bias.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Returns those of features [n, 16], of two rows at least."""
        return cls(rows.mean(dim=0), torch.cov(rows.T))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Returns the Fréchet distance of two Gaussians; inf where a moment is not finite.

    The trace of (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, which has those of
    Σ₁Σ₂. No root of a matrix that is not symmetric is taken, which is where the usual way becomes complex or inexact
    for singular covariances.
    """
    if not all(bool(one.isfinite().all()) for one in (*vars(first).values(), *vars(second).values())):
        return math.inf
    values, vectors = torch.linalg.eigh(first.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return max(0.0, float((first.mean - second.mean).square().sum() + traces - 2 * shared))


@functools.cache
def real() -> Moments:
    """Returns the moments of the digits to train on."""
    return Moments.of(features(to_train_on()[0]))


@functools.cache
def real_held_back(part: int) -> Moments:
    """Returns the moments of one part of the digits that are held back."""
    return Moments.of(features(held_back(part)[0]))


class Recent:
    """The distance of what a generator has drawn in its last few steps, as a number after each step.

    A loss of adversaries tells nothing of how good the digits are. The batch that a step has drawn anyway is cheap to
    look at, but 64 digits alone give a noisy distance that is too large. Those of the last eight steps together are
    512. A longer window would lag, and take a generator that goes from one digit to the next, a collapse that moves,
    for one that draws them all.
    """

    def __init__(self, batches: int = WINDOW) -> None:
        self._batches: deque[Tensor] = deque(maxlen=batches)

    def distance(self, images: Tensor) -> float:
        """Returns the distance of the last batches, this one among them, from the digits to train on."""
        self._batches.append(features(images))
        return frechet_distance(real(), Moments.of(torch.cat(list(self._batches))))
