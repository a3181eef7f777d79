"""Two towers learn which halves belong together: the left half of a digit, and its right half.

As CLIP learns of images and captions (Radford et al. 2021, arXiv:2103.00020): a symmetric cross-entropy over the
cosines of all pairs of a batch (InfoNCE), with a scale that is learned from 1/0.07 on and at most 100. The left half is
seen by a small convolutional network, the right half by a Transformer that reads it row by row. CLIP draws
projections and attention with a variance of 1/width, as LeCun's formula has it, and what ends a residual branch smaller
by the root of twice the depth; here the constructor's weights are as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .digits import SIDE, held_back, orders, to_train_on
from .training import Training

WIDTH, SHARED, HEADS, DEPTH = 32, 32, 4, 2
ROWS, RATE = 64, 1e-3
GROUPS = 5
"""Of the held-back digits of a part: of 100 each, among which every half has to find its other."""
FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0


class RowReader(nn.Module):
    """A Transformer whose tokens are the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(SIDE // 2, WIDTH)
        self.places = nn.Parameter(torch.randn(SIDE, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, DEPTH, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.out = nn.Linear(WIDTH, SHARED)

    def forward(self, images: Tensor) -> Tensor:
        """Returns [n, shared] of images [n, 1, 14, 7]."""
        x = self.blocks(self.rows(images.squeeze(1)) + self.places)
        embedded: Tensor = self.out(x.mean(dim=1))
        return embedded


class TwoTowers(nn.Module):
    """Two encoders into one space, and the scale of their cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(
            nn.Conv2d(1, WIDTH // 2, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(WIDTH // 2, WIDTH, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(WIDTH * 4 * 2, SHARED),
        )  # fmt: skip
        self.right = RowReader()
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scaled cosine of each left half [rows] with each right half [columns] of whole images."""
        left = F.normalize(self.left(images[..., : SIDE // 2]), dim=-1)
        right = F.normalize(self.right(images[..., SIDE // 2 :]), dim=-1)
        return self.log_scale.exp().clamp(max=LARGEST_SCALE) * left @ right.T


def info_nce(scores: Tensor) -> Tensor:
    """Returns the cross-entropy of finding each half's other among all, mean of both directions: ln n by guessing."""
    pairs = torch.arange(len(scores))
    return (F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2


def build(seed: int) -> TwoTowers:
    """Returns both as PyTorch draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoTowers()


def train(model: TwoTowers, seed: int) -> Iterator[Tensor]:
    """Trains both, and yields the loss of each step."""
    x, _ = to_train_on()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    model.train()
    for rows in orders(len(x), ROWS, torch.Generator().manual_seed(seed)):
        loss = info_nce(model(x[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def validate(model: TwoTowers, part: int) -> list[float]:
    """Returns the loss of each hundred of held-back digits."""
    with torch.no_grad():
        return [float(info_nce(model(group))) for group in held_back(part)[0].chunk(GROUPS)]


def both_towers(model: TwoTowers) -> Tensor:
    """Returns the loss of one batch: how the architecture is read."""
    return info_nce(model(to_train_on()[0][:ROWS]))


TRAINING = Training(
    name="two_towers",
    build=build,
    train=train,
    example=both_towers,
    validate=validate,
    literature="lecun_normal",
    steps=1000,
    budget=2000,
    about="halves of MNIST digits of 14×14, found among others by two encoders; InfoNCE",
)
