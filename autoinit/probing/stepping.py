"""How one training step is taken: operation by operation, as its owner's loop does, or in another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from ..task.batches import Batch
from ..task.optimizers import step_scheduler
from ..task.task import Task
from .signals import norms


class Stepper(Protocol):
    """Takes the steps of one training, each by `backward` and then `step`.

    Attributes:
        scaled: whether the loss is scaled, so that gradients may overflow at first.
        whole: whether a step is its owner's code as a whole, which sets the model's mode and drops gradients itself.
    """

    scaled: bool
    whole: bool

    def backward(self, batch: Batch) -> Tensor | float:
        """Sets the gradients of a batch's loss in `.grad` and returns the loss, which nobody waited for."""

    def step(self, loss: Tensor | float) -> None:
        """Moves the weights by the gradients, and steps the scheduler.

        Args:
            loss: that `backward` returned; a scheduler may ask for it.
        """

    def watch(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gets ready for `norms` of the gradients of the next step."""

    def norms(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """Returns the norms of the last step's gradients, of those parameters that got any."""

    def kept(self) -> list[Tensor]:
        """Returns the tensors that are kept from step to step beside the model's."""

    def close(self) -> None:
        """Ends the training where it stands, with what it has opened."""


MakeStepper = Callable[[Task, float], Stepper]
"""Returns what takes the steps of a new training, with a factor on every learning rate."""


class InParts:
    """What is common to those that take a step in two parts, with an optimizer of the training's own.

    Attributes:
        optimizer: that the training began with.
    """

    whole = False
    optimizer: Optimizer

    def watch(self, parameters: Sequence[nn.Parameter]) -> None:
        """Does nothing: gradients lie in `.grad` between the two parts."""

    def norms(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """Returns the norms of what lies in `.grad`."""
        return norms([one.grad for one in parameters if one.grad is not None])

    def kept(self) -> list[Tensor]:
        """Returns the tensors of the optimizer's state."""
        leaves = tree_leaves(list(self.optimizer.state.values()))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def close(self) -> None:
        """Does nothing."""


class Eager(InParts):
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
