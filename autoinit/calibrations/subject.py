"""What a calibration works on: a drawn model, its architecture, its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..graph import Graph
from ..task.batches import Batch
from ..task.snapshot import RandomStates, seed_generators
from ..task.task import Task

OTHER_SEEDS = 3
"""Passes of a training in which a layer that the first one left out is looked for, before one of evaluation."""


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
        self._pass(self.seed, training=True)()

    def further(self) -> Iterator[Callable[[], None]]:
        """Yields other passes on the first batch, where `forward` draws random numbers and so may leave layers out.

        The first ones are in training mode under other seeds, each the same at every call, and the last one is in
        evaluation mode. Ask for them after a call of `forward`.
        """
        after = RandomStates()
        seed_generators(self.seed, self.task.device)
        if after.are_now():
            return
        for number in range(1, OTHER_SEEDS + 1):
            yield self._pass((self.seed + number) % 2**63, training=True)
        yield self._pass(self.seed, training=False)

    def _pass(self, seed: int, *, training: bool) -> Callable[[], None]:
        run = forward_pass(self.task, seed, training=training, gradients=self.gradients)

        def charged() -> None:
            self.spend(forwards=1)
            run()

        return charged

    def batches(self, count: int) -> Iterator[Batch]:
        """Yields training batches in the order of the seed, epoch after epoch."""
        return self.task.order(self.seed, count)


def forward_pass(task: Task, seed: int, *, training: bool = True, gradients: bool = False) -> Callable[[], None]:
    """Returns one forward pass on the task's first batch, the same at every call, for a calibration to watch.

    It seeds torch's generators and sets the mode, which is that of training, so that normalization and dropout are as
    there: call it inside `task.preserved()`.
    """

    def run() -> None:
        seed_generators(seed, task.device)
        if task.model.training != training:
            task.model.train(training)
        with torch.set_grad_enabled(gradients):
            task.loss(task.train[0])

    return run
