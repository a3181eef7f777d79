"""The digits that these trainings are given: MNIST's at half their size, and in which order a training sees them."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from ..common.data import mnist_images

SIDE = 14
"""Pixels along each side of a digit: MNIST's 28, averaged in twos, as two cores cannot train on more in seconds."""


@functools.cache
def to_train_on() -> tuple[Tensor, Tensor]:
    """Returns 4,000 digits as [n, 1, 14, 14], in -1 (paper) to 1 (ink), and what they are."""
    split = mnist_images()
    return _between_ones(split.train_x), split.train_y


@functools.cache
def held_back(part: int) -> tuple[Tensor, Tensor]:
    """Returns 500 other digits and what they are: those of part 0, or those of part 1."""
    split = mnist_images()
    rows = slice(part, None, 2)
    return _between_ones(split.val_x)[rows], split.val_y[rows]


def _between_ones(standardized: Tensor) -> Tensor:
    low, high = (float(bound) for bound in mnist_images().train_x.aminmax())
    return ((standardized - low) / (high - low) * 2 - 1).clamp(-1, 1)


def orders(count: int, rows: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yields the numbers of `rows` of `count` rows without end: a new permutation for every pass through them."""
    while True:
        passed = torch.randperm(count, generator=generator)
        yield from passed[: count // rows * rows].split(rows)
