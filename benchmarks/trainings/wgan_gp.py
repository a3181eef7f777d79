"""A Wasserstein GAN with gradient penalty draws digits.

As in Gulrajani et al. 2017 (arXiv:1704.00028) and their network for MNIST: no normalization (a penalty on each digit's
own gradient forbids that of batches), penalty 10, several steps of the critic for one of the generator, and Adam with
β (0, 0.9), at ten times their rate of 1e-4, which suits networks of so few weights. A step is one of the critic; every
third, theirs every fifth, is one of the generator, too. Their code draws convolutions from He's uniform distribution
and linear layers from Xavier's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .dcgan import LATENT, Gan, both_parts, latents, validate
from .digits import orders, to_train_on
from .features import Recent
from .training import Training

CHANNELS = 16
ROWS, RATE, BETAS = 32, 1e-3, (0.0, 0.9)
PENALTY = 10.0
CRITIC_STEPS = 3


def generator() -> nn.Sequential:
    """Returns a network from latents [n, 32, 1, 1] to digits [n, 1, 14, 14]."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(LATENT, 2 * CHANNELS * 16), nn.ReLU(), nn.Unflatten(1, (2 * CHANNELS, 4, 4)),
        nn.ConvTranspose2d(2 * CHANNELS, CHANNELS, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(CHANNELS, 1, 4, stride=2, padding=1), nn.Tanh(),
    )  # fmt: skip


def critic() -> nn.Sequential:
    """Returns a network from digits [n, 1, 14, 14] to a number each, [n, 1], of any size."""
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(2 * CHANNELS * 16, 1),
    )  # fmt: skip


def build(seed: int) -> Gan:
    """Returns both as PyTorch draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gan(generator(), critic())


def train(model: Gan, seed: int) -> Iterator[float]:
    """Trains both by turns, and yields the distance of the last digits that were drawn.

    The distance after each step is of digits that the step has drawn anyway, for the critic; two steps in three they
    come from the generator of the step before, and are other ones.
    """
    x, _ = to_train_on()
    draws = torch.Generator().manual_seed(seed)
    of_generator, of_critic = (
        torch.optim.Adam(side.parameters(), lr=RATE, betas=BETAS) for side in (model.generator, model.critic)
    )
    recent = Recent(batches=16)
    model.train()
    for step, rows in enumerate(orders(len(x), ROWS, draws), 1):
        with torch.no_grad():
            drawn = model.generator(latents(ROWS, draws))
        of_critic.zero_grad()
        worse = model.critic(drawn).mean() - model.critic(x[rows]).mean()
        (worse + PENALTY * gradient_penalty(model.critic, x[rows], drawn, draws)).backward()
        of_critic.step()
        if step % CRITIC_STEPS == 0:
            of_generator.zero_grad()
            (-model.critic(model.generator(latents(ROWS, draws))).mean()).backward()
            of_generator.step()
        yield recent.distance(drawn)


def gradient_penalty(critic: nn.Module, first: Tensor, second: Tensor, draws: torch.Generator) -> Tensor:
    """Returns how far the critic's slope is from 1, as the mean of (‖∇ critic(x)‖ - 1)².

    Args:
        critic: of images.
        first: images [n, …].
        second: as many others; the slope is taken at a random place on the line from each to its other.
        draws: of those places.
    """
    share = torch.rand(len(first), *[1] * (first.dim() - 1), generator=draws)
    between = (first + share * (second - first)).requires_grad_()
    slopes = torch.autograd.grad(critic(between).sum(), between, create_graph=True)[0]
    # At a gradient of exactly zero a norm has no derivative but NaN.
    norms = (slopes.flatten(1).square().sum(dim=1) + 1e-12).sqrt()
    return (norms - 1).square().mean()


TRAINING = Training(
    name="wgan_gp",
    build=build,
    train=train,
    example=both_parts,
    validate=validate,
    literature="he_uniform",
    steps=1800,
    budget=3000,
    about="a WGAN-GP on MNIST digits of 14×14; Fréchet distance of the last 512 drawn in a classifier's features",
)
