"""A DCGAN draws digits: two adversaries, of which neither loss tells how good they are.

Transposed convolutions, batch normalization, ReLU against LeakyReLU, and Adam with β₁ 0.5 as in Radford et al. 2015
(arXiv:1511.06434), at five times its rate, which suits networks of a few thousand weights; the loss that does not
saturate of Goodfellow et al. 2014, with labels of real digits at 0.9 (one-sided smoothing, Salimans et al. 2016,
arXiv:1606.03498). The paper draws all weights from N(0, 0.02²); here the constructor's are as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .digits import orders, to_train_on
from .features import Moments, Recent, features, frechet_distance, real_held_back
from .training import Training

LATENT, CHANNELS = 32, 16
ROWS, RATE, BETAS = 64, 1e-3, (0.5, 0.999)
SMOOTH = 0.9
SAMPLES = 1000
"""Digits that are drawn to validate a generator."""


class Gan(nn.Module):
    """A generator of digits and who judges them, in one module."""

    def __init__(self, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.critic = critic


def generator() -> nn.Sequential:
    """Returns a network from latents [n, 32, 1, 1] to digits [n, 1, 14, 14]."""
    return nn.Sequential(
        nn.ConvTranspose2d(LATENT, 2 * CHANNELS, 4, bias=False), nn.BatchNorm2d(2 * CHANNELS), nn.ReLU(),
        nn.ConvTranspose2d(2 * CHANNELS, CHANNELS, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(CHANNELS), nn.ReLU(),
        nn.ConvTranspose2d(CHANNELS, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip


def discriminator() -> nn.Sequential:
    """Returns a network from digits [n, 1, 14, 14] to logits [n]: how real each looks."""
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * CHANNELS), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * CHANNELS, 1, 4), nn.Flatten(0),
    )  # fmt: skip


def build(seed: int) -> Gan:
    """Returns both as PyTorch draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gan(generator(), discriminator())


def latents(count: int, draws: torch.Generator) -> Tensor:
    """Returns inputs of a generator, [count, 32, 1, 1]."""
    return torch.randn(count, LATENT, 1, 1, generator=draws)


def train(model: Gan, seed: int) -> Iterator[float]:
    """Trains both by turns, and yields the distance of the last digits that were drawn."""
    x, _ = to_train_on()
    draws = torch.Generator().manual_seed(seed)
    of_generator, of_critic = (
        torch.optim.Adam(side.parameters(), lr=RATE, betas=BETAS) for side in (model.generator, model.critic)
    )
    recent = Recent()
    model.train()
    for rows in orders(len(x), ROWS, draws):
        drawn = model.generator(latents(ROWS, draws))
        of_critic.zero_grad()
        real_loss = _against(model.critic(x[rows]), SMOOTH)
        (real_loss + _against(model.critic(drawn.detach()), 0.0)).backward()
        of_critic.step()
        of_generator.zero_grad()
        _against(model.critic(drawn), 1.0).backward()
        of_generator.step()
        yield recent.distance(drawn)


def _against(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def validate(model: Gan, part: int) -> float:
    """Returns the distance of new digits from those that are held back, without noise of the batch's statistics."""
    was_training = model.generator.training
    model.generator.eval()
    with torch.no_grad():
        drawn = model.generator(latents(SAMPLES, torch.Generator().manual_seed(part)))
    model.generator.train(was_training)
    return frechet_distance(real_held_back(part), Moments.of(features(drawn)))


def both_parts(model: Gan) -> Tensor:
    """Returns a number that both depend on, each by itself: how their architecture is read."""
    drawn = model.generator(latents(ROWS, torch.Generator().manual_seed(0)))
    both: Tensor = drawn.square().mean() + model.critic(to_train_on()[0][:ROWS]).square().mean()
    return both


TRAINING = Training(
    name="dcgan",
    build=build,
    train=train,
    example=both_parts,
    validate=validate,
    literature="dcgan",
    steps=1200,
    budget=2000,
    about="a DCGAN on MNIST digits of 14×14; Fréchet distance of the last 512 drawn in a classifier's features",
)
