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


class StackedOptimizer:
    """The owner's optimizer and scheduler, moving stacked weights.

    The optimizer runs at the largest of the candidates' learning rates. Candidates of a smaller one then go back by
    their share: a step that is proportional to the learning rate is by that what it would have been, and rounds
    as it would, for the optimizers that `ELEMENTWISE` says so of.

    Args:
        task: whose optimizer it is.
        stacked: the model's parameter → its values for all candidates, [K, *its shape].
        factors: of the K candidates, on every learning rate.
    """

    def __init__(self, task: Task, stacked: Mapping[Tensor, Tensor], factors: Sequence[float]) -> None:
        self._factors = list(factors)
        self._shares: dict[tuple[torch.dtype, torch.device], tuple[list[float], Tensor]] = {}
        largest = max(factors)
        self._optimizer, self._scheduler = task.build_optimizer(largest)
        self._adopt(stacked)
        # Only their learning rates are of use: an optimizer without parameters does nothing else.
        self._slower = {factor: task.build_optimizer(factor) for factor in {*factors} - {largest}}
        for optimizer, _ in self._slower.values():
            for group in optimizer.param_groups:
                group["params"] = []

    def step(self) -> None:
        """Moves all candidates by their gradients, and steps the scheduler."""
        groups = self._optimizer.param_groups
        moved = [leaf for group in groups for leaf in group["params"] if leaf.grad is not None]
        before = torch._foreach_clone([leaf.detach() for leaf in moved]) if self._slower and moved else []
        self._optimizer.step()
        if before:
            self._shorten(dict(zip(moved, before, strict=True)))
        step_scheduler(self._scheduler, 0.0)
        for optimizer, scheduler in self._slower.values():
            optimizer.step()
            step_scheduler(scheduler, 0.0)

    def keep(self, rows: Tensor, replaced: Mapping[Tensor, Tensor]) -> None:
        """Goes on with some of the candidates only.

        Args:
            rows: their places, an index tensor.
            replaced: stacked weight so far → the one in its place, which holds these rows.
        """
        self._factors = [self._factors[row] for row in rows.tolist()]
        self._replace(replaced, lambda value: value[rows])

    def _adopt(self, stacked: Mapping[Tensor, Tensor]) -> None:
        """Puts stacked weights in the place of the model's; some optimizers have state before their first step."""
        size = len(self._factors)
        self._replace(stacked, lambda value: value.expand(size, *value.shape).clone())

    def _replace(self, replaced: Mapping[Tensor, Tensor], convert: Callable[[Tensor], Tensor]) -> None:
        for group in self._optimizer.param_groups:
            group["params"] = [replaced[old] for old in group["params"] if old in replaced]
        state: defaultdict[Tensor, Any] = defaultdict(dict)
        for old, values in self._optimizer.state.items():
            if old in replaced:
                state[replaced[old]] = {
                    key: convert(value) if isinstance(value, Tensor) and key not in _ONE_FOR_ALL else value
                    for key, value in values.items()
                }
        self._optimizer.state = state

    @torch.no_grad()
    def _shorten(self, before: Mapping[Tensor, Tensor]) -> None:
        """Takes back from each candidate's step what its learning rate is smaller than the largest."""
        for place, group in enumerate(self._optimizer.param_groups):
            largest = float(group["lr"])
            if largest == 0.0:
                continue
            rates = {factor: float(slower.param_groups[place]["lr"]) for factor, (slower, _) in self._slower.items()}
            shares = [rates.get(factor, largest) / largest for factor in self._factors]
            for leaf in group["params"]:
                if leaf in before:
                    share = self._share(shares, leaf).view(-1, *[1] * (leaf.dim() - 1))
                    leaf.copy_(torch.lerp(before[leaf], leaf, share))

    def _share(self, shares: list[float], leaf: Tensor) -> Tensor:
        """Returns shares beside a weight; without a scheduler they stay the same, and are copied to a device once."""
        key = (leaf.dtype, leaf.device)
        if key not in self._shares or self._shares[key][0] != shares:
            self._shares[key] = shares, torch.tensor(shares, dtype=leaf.dtype, device=leaf.device)
        return self._shares[key][1]
