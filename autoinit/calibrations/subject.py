"""What a calibration works on: a drawn model, its architecture, its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..graph import Graph
from ..task.batches import Batch
from ..task.snapshot import seed_generators
from ..task.task import Task


def _nothing(*, steps: float = 0.0, forwards: float = 0.0) -> None:
    """Charges nobody."""


@dataclass
class Subject:
    """A drawn model to calibrate. Random states, modes and buffers are put back by whoever calls the calibration.

    Attributes:
        task: what will be trained; its model carries the draw.
        graph: its architecture; a layer with `keep` must not be changed.
        targets: the recipe's own factor of each weight by name, 1 where it is not named: what a calibration of
            scales aims at in the place of 1.
        seed: of whatever is random in a calibration, and of dropout.
        gradients: whether a forward pass has to record gradients, as the loss differentiates by itself.
        spend: told what was used: training steps (forward, backward and update), forward passes.
    """

    task: Task
    graph: Graph
    targets: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    gradients: bool = False
    spend: Callable[..., None] = _nothing

    @property
    def model(self) -> nn.Module:
        """The task's model."""
        return self.task.model

    def forward(self) -> None:
        """Runs one forward pass on the first batch, in training mode, the same at every call."""
        self.spend(forwards=1)
        forward_pass(self.task, self.seed, self.gradients)()

    def batches(self, count: int) -> Iterator[Batch]:
        """Yields training batches in the order of the seed, epoch after epoch."""
        return self.task.order(self.seed, count)


def forward_pass(task: Task, seed: int, gradients: bool = False) -> Callable[[], None]:
    """Returns one forward pass on the task's first batch, the same at every call, for a calibration to watch.

    It runs in training mode and seeds torch's generators, so that normalization and dropout are as in training:
    call it inside `task.preserved()`.
    """

    def run() -> None:
        seed_generators(seed, task.device)
        if not task.model.training:
            task.model.train()
        with torch.set_grad_enabled(gradients):
            task.loss(task.train[0])

    return run
