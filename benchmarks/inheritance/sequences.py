"""Sequences of tasks on MNIST digits, on which weights become stale: new pixels, new pairs, new labels, new rows.

A sequence gives its tasks and the network that learns them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common.data import mnist_images, mnist_rows

WIDTH = 256
PAIR_SEED, PIXEL_SEED, LABEL_SEED, WARP_SEED, ROW_SEED = 10_000, 20_000, 30_000, 40_000, 50_000


@dataclass(frozen=True)
class Part:
    """One task of a sequence.

    Attributes:
        train: inputs and labels.
        held_back: inputs and labels on which its accuracy is taken; where labels are random, those of training.
        classes: of the head.
        steps: of its training.
    """

    train: tuple[Tensor, Tensor]
    held_back: tuple[Tensor, Tensor]
    classes: int
    steps: int


Network = Callable[[int, int], nn.Sequential]
"""(classes, seed) → a fresh network, whose last module is its head."""


@dataclass(frozen=True)
class Course:
    """A sequence of tasks and the network that learns them.

    Attributes:
        parts: seed → the tasks.
        network: what learns them.
        heads_differ: whether each task has a head of its own.
        seeds: how many are run.
    """

    parts: Callable[[int], list[Part]]
    network: Network
    heads_differ: bool = False
    seeds: int = 3


def dense(classes: int, seed: int) -> nn.Sequential:
    """Returns a fresh ReLU network 784-256-256-classes, as torch draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes)
        )


def convolutional(classes: int, seed: int) -> nn.Sequential:
    """Returns a fresh ReLU network for [1, 14, 14] of three convolutions (16, 32, 64 channels), as torch draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, classes),
        )


def permuted(seed: int, tasks: int = 25, steps: int = 160) -> list[Part]:
    """Returns ten digits in tasks whose pixels lie in another order each time."""
    data, found = mnist_rows(), []
    for number in range(tasks):
        order = torch.randperm(784, generator=_generator(PIXEL_SEED + 100 * seed + number))
        found.append(Part((data.train_x[:, order], data.train_y), (data.val_x[:, order], data.val_y), 10, steps))
    return found


def pairs(seed: int, tasks: int = 25, steps: int = 80) -> list[Part]:
    """Returns tasks of two digits each, no pair twice, each with a head of its own."""
    data, found = mnist_rows(), []
    all_pairs = torch.combinations(torch.arange(10))
    chosen = all_pairs[torch.randperm(len(all_pairs), generator=_generator(PAIR_SEED + seed))][:tasks]
    for one, other in chosen.tolist():
        sides = []
        for x, y in ((data.train_x, data.train_y), (data.val_x, data.val_y)):
            mine = (y == one) | (y == other)
            sides.append((x[mine], (y[mine] == other).long()))
        found.append(Part(sides[0], sides[1], 2, steps))
    return found


def random_labels(seed: int, tasks: int = 25, steps: int = 240, rows: int = 800) -> list[Part]:
    """Returns the same digits with labels drawn anew for each task, to be learned by heart."""
    x, found = mnist_rows().train_x[:rows], []
    for number in range(tasks):
        y = torch.randint(0, 10, (rows,), generator=_generator(LABEL_SEED + 100 * seed + number))
        found.append(Part((x, y), (x, y), 10, steps))
    return found


def half_first(seed: int, steps: int = 1000) -> list[Part]:
    """Returns half of the rows to convergence, then all of them (Ash & Adams 2020)."""
    data = mnist_rows()
    order = torch.randperm(len(data.train_x), generator=_generator(seed))[: len(data.train_x) // 2]
    held_back = (data.val_x, data.val_y)
    return [
        Part((data.train_x[order], data.train_y[order]), held_back, 10, steps),
        Part((data.train_x, data.train_y), held_back, 10, steps),
    ]


def half_of_warped_first(seed: int, rows: int = 2000, steps: int = 1000) -> list[Part]:
    """Returns half of a few warped digits, learned by heart, then all of them; the other digits are held back.

    Ash & Adams 2020 (arXiv:1910.08475) on digits that are hard: a network that knows its rows by heart is far from
    perfect on others.
    """
    x, y = warped_digits()
    order = torch.randperm(len(x), generator=_generator(ROW_SEED + seed))
    chosen, others = order[:rows], order[rows:]
    held_back = (x[others], y[others])
    return [Part((x[some], y[some]), held_back, 10, steps) for some in (chosen[: rows // 2], chosen)]


def warped_digits(degrees: float = 40.0, shift: float = 0.25, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Returns 5,000 digits, [n, 1, 14, 14], each turned, shifted and noised once and for all, and their labels.

    Args:
        degrees: up to which a digit is turned, either way.
        shift: share of the side up to which it is shifted, in both directions.
        noise: standard deviation of what is added to each pixel; pixels without have about 0.8.
    """
    data, generator = mnist_images(), _generator(WARP_SEED)
    x, y = torch.cat([data.train_x, data.val_x]), torch.cat([data.train_y, data.val_y])
    angle = (2 * torch.rand(len(x), generator=generator) - 1) * degrees * pi / 180
    place = (2 * torch.rand(len(x), 2, generator=generator) - 1) * 2 * shift  # a side is 2 long in grid_sample
    turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
    grid = F.affine_grid(torch.cat([turned, place[:, :, None]], dim=2), list(x.shape), align_corners=False)
    paper = x.min()  # what grid_sample adds outside is 0, which has to be paper
    moved = F.grid_sample(x - paper, grid, align_corners=False) + paper
    return moved + noise * torch.randn(x.shape, generator=generator), y


SEQUENCES = {
    "permuted digits": Course(permuted, dense),
    "pairs of digits": Course(pairs, dense, heads_differ=True),
    "random labels": Course(random_labels, dense),
    "half, then all": Course(half_first, dense),
    "warped digits, half first": Course(half_of_warped_first, convolutional, seeds=5),
}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
