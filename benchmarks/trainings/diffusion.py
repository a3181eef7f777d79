"""A diffusion model learns to tell the noise in digits.

The process and the loss of Ho et al. 2020 (arXiv:2006.11239), a mean squared error of the predicted noise at a random
time of 1,000, on scikit-learn's digits of 8×8; by a small diffusion transformer (Peebles and Xie 2023,
arXiv:2212.09748), whose blocks are modulated by the time and the class (adaLN). The paper has the layers that modulate
and the last one begin at zero, and draws the others from Xavier's uniform distribution; here the constructor's weights
are as they are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.data import digits_rows
from .digits import orders
from .training import Training

SIDE, PATCH = 8, 2
WIDTH, DEPTH, HEADS, CLASSES = 48, 3, 4, 10
TIMES = 1000
ROWS, RATE = 32, 1e-3
REPEATS = 4
"""Times and noises that each digit that is held back is judged with."""
GROUPS = 6
"""Of the held-back digits of a part: as many values."""


class Block(nn.Module):
    """Attention and an MLP of two layers, each shifted, scaled and gated by what the digit is conditioned on."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Returns x [n, tokens, width], changed as the condition [n, width] has it."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        x = x + gate1 * self.attention(modulated(self.norm1(x), shift1, scale1))
        changed: Tensor = x + gate2 * self.mlp(modulated(self.norm2(x), shift2, scale2))
        return changed

    def attention(self, x: Tensor) -> Tensor:
        """Returns what each token sees of the others, [n, tokens, width]."""
        heads = (one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in self.qkv(x).chunk(3, dim=-1))
        seen = F.scaled_dot_product_attention(*heads)
        mixed: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return mixed


class DiffusionTransformer(nn.Module):
    """Tells the noise in a digit of 8×8 from the noisy digit, the time and the class."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, stride=PATCH)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.label = nn.Embedding(CLASSES, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH))
        self.head = nn.Linear(WIDTH, PATCH * PATCH)

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Returns the noise of noisy digits [n, 1, 8, 8] at times [n] of classes [n], in their shape."""
        condition = self.time(waves(times)) + self.label(labels)
        x = self.patches(noisy)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + positions(rows, columns)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        x = self.head(modulated(self.norm(x), shift, scale))
        return F.fold(x.transpose(1, 2), (rows * PATCH, columns * PATCH), PATCH, stride=PATCH)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def waves(places: Tensor, width: int = WIDTH) -> Tensor:
    """Returns sines and cosines of places [n] at wavelengths from 2π to 20,000π, [n, width]."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = places.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@functools.cache
def positions(rows: int, columns: int) -> Tensor:
    """Returns where each token is, [rows·columns, width]: half of the width tells its row, half its column."""
    row, column = (waves(torch.arange(count), WIDTH // 2) for count in (rows, columns))
    return torch.cat([row.repeat_interleave(columns, dim=0), column.repeat(rows, 1)], dim=-1)


@functools.cache
def kept_share() -> Tensor:
    """Returns the share of the digit's variance that is left at each time, [1000]: ᾱ of the paper's schedule."""
    return (1 - torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64)).cumprod(dim=0).float()


@functools.cache
def _images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits to train on and held back as [n, 1, 8, 8] in -1 (paper) to 1 (ink), each with their classes."""
    split = digits_rows()
    low, high = split.train_x.amin(), split.train_x.amax()
    x, held = (((one - low) / (high - low) * 2 - 1).reshape(-1, 1, SIDE, SIDE) for one in (split.train_x, split.val_x))
    return x, split.train_y, held, split.val_y


def held_back(part: int) -> tuple[Tensor, Tensor]:
    """Returns the digits of one of two parts that are held back, 174 each, and what they are."""
    *_, x, y = _images()
    count = len(x) // 2 // GROUPS * GROUPS
    return x[part::2][:count], y[part::2][:count]


def build(seed: int) -> DiffusionTransformer:
    """Returns it as PyTorch draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiffusionTransformer()


def noised(images: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Returns images with noise, the time of each, and the noise alone.

    The times of a batch are spread evenly over all of them from a random first (Kingma et al. 2021, arXiv:2107.00630).
    Each is still uniform, and the mean loss of the batch, which depends on the time most of all, is less noisy.
    """
    even = (torch.rand(1, generator=draws) + torch.arange(len(images)) / len(images)) % 1
    times = (even * TIMES).long().clamp(max=TIMES - 1)
    noise = torch.randn(images.shape, generator=draws)
    kept = kept_share()[times].reshape(-1, 1, 1, 1)
    return kept.sqrt() * images + (1 - kept).sqrt() * noise, times, noise


def train(model: DiffusionTransformer, seed: int) -> Iterator[Tensor]:
    """Trains it, and yields the loss of each step."""
    x, y, _, _ = _images()
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    model.train()
    for rows in orders(len(x), ROWS, draws):
        noisy, times, noise = noised(x[rows], draws)
        loss = F.mse_loss(model(noisy, times, y[rows]), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def validate(model: DiffusionTransformer, part: int) -> list[float]:
    """Returns the mean loss of each group of held-back digits, with times and noises that are a part's own."""
    draws = torch.Generator().manual_seed(part)
    values = []
    with torch.no_grad():
        for images, labels in zip(*(one.chunk(GROUPS) for one in held_back(part)), strict=True):
            repeated = images.repeat(REPEATS, 1, 1, 1)
            noisy, times, noise = noised(repeated, draws)
            values.append(float(F.mse_loss(model(noisy, times, labels.repeat(REPEATS)), noise)))
    return values


def denoised(model: DiffusionTransformer) -> Tensor:
    """Returns the loss of one batch: how the architecture is read."""
    x, y, _, _ = _images()
    noisy, times, noise = noised(x[:ROWS], torch.Generator().manual_seed(0))
    return F.mse_loss(model(noisy, times, y[:ROWS]), noise)


TRAINING = Training(
    name="diffusion",
    build=build,
    train=train,
    example=denoised,
    validate=validate,
    literature="adaln_zero",
    steps=1200,
    budget=2000,
    about="a diffusion transformer on scikit-learn's digits of 8×8; mean squared error of the noise",
)
