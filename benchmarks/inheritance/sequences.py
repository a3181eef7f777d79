"""Sequences of tasks on MNIST digits, on which weights become stale: new pixels, new pairs, new labels, new rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.data import mnist_rows

WIDTH = 256
PAIR_SEED, PIXEL_SEED, LABEL_SEED = 10_000, 20_000, 30_000


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


def network(classes: int, seed: int) -> nn.Sequential:
    """Returns a fresh ReLU network 784-256-256-classes, as torch draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes)
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


SEQUENCES: dict[str, Callable[[int], list[Part]]] = {
    "permuted digits": permuted,
    "pairs of digits": pairs,
    "random labels": random_labels,
    "half, then all": half_first,
}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
