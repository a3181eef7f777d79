"""The owner's optimizer on stacked weights: one step moves every candidate, each at its own learning rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..task.optimizers import scheduler_parts, step_scheduler, unfuse_strided
from ..task.task import Task

ELEMENTWISE: dict[type[Optimizer], bool] = {
    SGD: True,
    Adam: True,
    AdamW: True,
    RMSprop: True,
    Adagrad: True,
    Adadelta: True,
    Adamax: True,
    NAdam: True,
    RAdam: True,
    Rprop: False,
    ASGD: False,
}
"""Optimizers that move each entry of a weight by that entry's own gradients → whether a step is proportional to the
learning rate. Only those can move candidates of several learning rates together."""

_ONE_FOR_ALL = frozenset({"step", "mu_product", "eta", "mu"})
"""State that is one number for a whole parameter; all other state has the parameter's shape."""


def why_not_elementwise(task: Task) -> str:
    """Returns why a task's optimizer cannot move stacked weights; an empty text where it can."""
    optimizer, scheduler = task.build_optimizer()
    name = type(optimizer).__name__
    if type(optimizer) not in ELEMENTWISE:
        known = ", ".join(kind.__name__ for kind in ELEMENTWISE)
        return f"{name} is not known to move each entry of a weight by its own gradients alone, as these do: {known}"
    before = [hook for hook in optimizer._optimizer_step_pre_hooks.values() if hook is not unfuse_strided]
    if before or optimizer._optimizer_step_post_hooks:
        return f"hooks on the steps of {name} may look at whole weights, of which it would see several candidates'"
    if any(isinstance(part, ReduceLROnPlateau) for part in scheduler_parts(scheduler)):
        return "ReduceLROnPlateau sets the learning rate by the loss, of which there is one for each candidate"
    return ""


def mixes_rates(task: Task) -> bool:
    """Returns whether candidates of different learning rates can be moved together."""
    return ELEMENTWISE.get(type(task.build_optimizer()[0]), False)


class Shares:
    """What part of a step at the largest learning rate each candidate takes, beside the weights of each group.

    They stay where they are in memory when they change.

    Args:
        optimizer: of stacked weights.
        size: candidates.
    """

    def __init__(self, optimizer: Optimizer, size: int) -> None:
        groups = optimizer.param_groups
        self._numbers = [[1.0] * size for _ in groups]
        self._tensors = [
            {kind: torch.ones(size, dtype=kind[0], device=kind[1]) for kind in {*map(_kind, group["params"])}}
            for group in groups
        ]

    def set(self, numbers: Sequence[list[float]]) -> None:
        """Takes the shares of each group; without a scheduler they stay the same, and are copied to a device once."""
        for place, (before, now) in enumerate(zip(self._numbers, numbers, strict=True)):
            if before != now:
                self._numbers[place] = now
                for tensor in self._tensors[place].values():
                    tensor.copy_(torch.tensor(now, dtype=tensor.dtype))

    def beside(self, place: int, weight: Tensor) -> Tensor:
        """Returns the shares of a group, to be multiplied with one of its weights."""
        return self._tensors[place][_kind(weight)].view(-1, *[1] * (weight.dim() - 1))


def _kind(weight: Tensor) -> tuple[torch.dtype, torch.device]:
    return weight.dtype, weight.device


@torch.no_grad()
def step_by_shares(optimizer: Optimizer, shares: Shares) -> None:
    """Takes a step, and takes back from each candidate's what its learning rate is smaller than the largest."""
    groups = optimizer.param_groups
    moved = [weight for group in groups for weight in group["params"] if weight.grad is not None]
    # Copies of all in one operation; releases of torch before 2.13 have none that is called so.
    before = dict(zip(moved, torch._foreach_mul([*moved], 1.0), strict=True)) if moved else {}
    optimizer.step()
    for place, group in enumerate(groups):
        for weight in group["params"]:
            if weight in before:
                weight.copy_(torch.lerp(before[weight], weight, shares.beside(place, weight)))


class StackedOptimizer:
    """The owner's optimizer and scheduler, moving stacked weights.

    The optimizer runs at the largest of the candidates' learning rates. Candidates of a smaller one then go back by
    their share: a step that is proportional to the learning rate is by that what it would have been, and rounds
    as it would, for the optimizers that `ELEMENTWISE` says so of.

    Attributes:
        optimizer: of all candidates, at the largest learning rate.

    Args:
        task: whose optimizer it is.
        stacked: the model's parameter → its values for all candidates, [K, *its shape].
        factors: of the K candidates, on every learning rate.
    """

    def __init__(self, task: Task, stacked: Mapping[Tensor, Tensor], factors: Sequence[float]) -> None:
        self._factors = list(factors)
        largest = max(factors)
        self.optimizer, self._scheduler = task.build_optimizer(largest)
        self._adopt(stacked)
        self._shares = Shares(self.optimizer, len(factors))
        # Only their learning rates are of use: an optimizer without parameters does nothing else.
        self._slower = {factor: task.build_optimizer(factor) for factor in {*factors} - {largest}}
        for optimizer, _ in self._slower.values():
            for group in optimizer.param_groups:
                group["params"] = []

    @property
    def mixes(self) -> bool:
        """Whether it began with candidates of several learning rates."""
        return bool(self._slower)

    def step(self) -> None:
        """Moves all candidates by their gradients, and steps the scheduler."""
        if self.mixes:
            self._shares.set(self.shares())
            step_by_shares(self.optimizer, self._shares)
        else:
            self.optimizer.step()
        self.schedule()

    def schedule(self) -> bool:
        """Steps the scheduler for each learning rate; returns whether there is one."""
        step_scheduler(self._scheduler, 0.0)
        for optimizer, scheduler in self._slower.values():
            optimizer.step()
            step_scheduler(scheduler, 0.0)
        return self._scheduler is not None

    def shares(self) -> list[list[float]]:
        """Returns for each group what the candidates' present learning rates are of the largest."""
        found = []
        for place, group in enumerate(self.optimizer.param_groups):
            largest = float(group["lr"])
            rates = {factor: float(slower.param_groups[place]["lr"]) for factor, (slower, _) in self._slower.items()}
            found.append([rates.get(factor, largest) / largest if largest else 1.0 for factor in self._factors])
        return found

    def keep(self, rows: Tensor, replaced: Mapping[Tensor, Tensor]) -> None:
        """Goes on with some of the candidates only.

        Args:
            rows: their places, an index tensor.
            replaced: stacked weight so far → the one in its place, which holds these rows.
        """
        self._factors = [self._factors[row] for row in rows.tolist()]
        self._replace(replaced, lambda value: value[rows])
        self._shares = Shares(self.optimizer, len(self._factors))

    def _adopt(self, stacked: Mapping[Tensor, Tensor]) -> None:
        """Puts stacked weights in the place of the model's; some optimizers have state before their first step."""
        size = len(self._factors)
        self._replace(stacked, lambda value: value.expand(size, *value.shape).clone())

    def _replace(self, replaced: Mapping[Tensor, Tensor], convert: Callable[[Tensor], Tensor]) -> None:
        for group in self.optimizer.param_groups:
            group["params"] = [replaced[old] for old in group["params"] if old in replaced]
        state: defaultdict[Tensor, Any] = defaultdict(dict)
        for old, values in self.optimizer.state.items():
            if old in replaced:
                state[replaced[old]] = {
                    key: convert(value) if isinstance(value, Tensor) and key not in _ONE_FOR_ALL else value
                    for key, value in values.items()
                }
        self.optimizer.state = state
