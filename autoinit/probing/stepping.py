"""How one training step is taken: operation by operation, as its owner's loop does, or in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from torch.optim import Optimizer

from ..task.batches import Batch
from ..task.optimizers import step_scheduler
from ..task.task import Task


class Stepper(Protocol):
    """Takes the steps of one training, each by `backward` and then `step`.

    Attributes:
        scaled: whether the loss is scaled, so that gradients may overflow at first.
    """

    scaled: bool

    @property
    def optimizer(self) -> Optimizer | None:
        """The one that the training began with; None where it makes its own."""

    def backward(self, batch: Batch) -> Tensor | float:
        """Sets the gradients of a batch's loss in `.grad` and returns the loss, which nobody waited for."""

    def step(self, loss: Tensor | float) -> None:
        """Moves the weights by the gradients, and steps the scheduler.

        Args:
            loss: that `backward` returned; a scheduler may ask for it.
        """


MakeStepper = Callable[[Task, float], Stepper]
"""Returns what takes the steps of a new training, with a factor on every learning rate."""


class Eager:
    """Takes each step operation by operation, with an optimizer of the training's own.

    Args:
        task: what is trained, and how.
        lr_factor: on every group's learning rate.
    """

    def __init__(self, task: Task, lr_factor: float = 1.0) -> None:
        self.optimizer, self._scheduler = task.build_optimizer(lr_factor)
        self._scale = task.loss_scale(self.optimizer)
        self.scaled = self._scale is not None
        self._task = task
        self._trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]

    def backward(self, batch: Batch) -> Tensor:
        """Sets the gradients of a batch's loss and returns the loss."""
        for parameter in self._trained:  # what optimizer.zero_grad does, without its tenth of a millisecond
            parameter.grad = None
        return self._task.backward(batch, self._scale)

    def step(self, loss: Tensor | float) -> None:
        """Moves the weights; a step whose scaled gradients have overflown is none, for the scheduler neither."""
        scale = self._scale
        if scale is None:
            self.optimizer.step()
        if scale is None or scale.step():
            step_scheduler(self._scheduler, loss)
