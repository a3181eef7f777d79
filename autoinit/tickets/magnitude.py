"""Iterative magnitude pruning: trained, thinned out, rewound, in rounds."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ..seeds import seed_of_use
from ..task.assign import assign_all, lasting_buffers
from ..task.optimizers import OptimizerBuilder, step_scheduler
from ..task.snapshot import seed_generators
from ..task.task import Task
from .ranking import Masks, Scope, best

STEPS = 1000
"""Training steps of a round where none are given."""
SHARE = 0.2
"""Share of what is left that a round removes at most: the paper's."""


@dataclass(frozen=True)
class Rounds:
    """How a ticket is searched.

    Attributes:
        count: of rounds.
        steps: of each training, the ones before the step that is rewound to included.
        rewind_to: the step that weights go back to.
        scope: of the ranking.
        seed: of the batch order and of dropout, the same in all rounds.
    """

    count: int
    steps: int
    rewind_to: int = 0
    scope: Scope = "global"
    seed: int = 0


@dataclass(frozen=True)
class _State:
    """Where a training stands: weights, buffers, optimizer and scheduler."""

    tensors: dict[str, Tensor]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None


def usual_rounds(sparsity: float) -> int:
    """Returns the rounds in which no more than a fifth of what is left goes at a time."""
    return max(1, math.ceil(math.log(1 - sparsity) / math.log(1 - SHARE) - 1e-9))


def magnitude(
    task: Task, builder: OptimizerBuilder, names: list[str], sparsity: float, rounds: Rounds
) -> tuple[Masks, Masks, dict[str, Tensor]]:
    """Returns masks, the magnitudes of the last round, and the weights that were rewound to.

    In round k of n the network is trained from the weights of the step that is rewound to, and the smallest |w| are
    removed until (1 − sparsity)^(k/n) of all are left. Optimizer and schedule go on from that step, too. Source:
    Frankle & Carbin 2019, "The Lottery Ticket Hypothesis", arXiv:1803.03635; Frankle et al. 2020, "Linear Mode
    Connectivity and the Lottery Ticket Hypothesis", arXiv:1912.05671.

    Args:
        task: the model, which is put back, and its data.
        builder: of fresh optimizers for it.
        names: of the weights.
        sparsity: share of their entries that is removed.
        rounds: how many, and of which length.

    Raises:
        ModelError: weights are not finite after a training.
    """
    with task.preserved() as snapshot:
        task.model.train()
        masks = {name: torch.ones_like(task.model.get_parameter(name), dtype=torch.bool) for name in names}
        start = _trained(task, builder, {}, rounds, until=rounds.rewind_to)
        scores: Masks = {}
        for turn in range(1, rounds.count + 1):
            snapshot.rewind()
            task.model.train()
            _trained(task, builder, masks if turn > 1 else {}, rounds, start=start, until=rounds.steps)
            found = {name: task.model.get_parameter(name).detach().abs() for name in names}
            scores = {name: one.masked_fill(~masks[name], -math.inf) for name, one in found.items()}
            masks = best(scores, 1 - (1 - sparsity) ** (turn / rounds.count), scope=rounds.scope)
        return masks, scores, start.tensors


def _trained(
    task: Task,
    builder: OptimizerBuilder,
    masks: Mapping[str, Tensor],
    rounds: Rounds,
    *,
    start: _State | None = None,
    until: int,
) -> _State:
    """Returns where a training stands at a step, which goes on from where another one stood at `rewind_to`."""
    optimizer, scheduler = builder()
    begin = 0
    if start is not None:
        begin = rounds.rewind_to
        assign_all(task.model, start.tensors)
        if begin:
            optimizer.load_state_dict(copy.deepcopy(start.optimizer))
            if scheduler is not None and start.scheduler is not None:
                scheduler.load_state_dict(copy.deepcopy(start.scheduler))
    seed_generators(seed_of_use(rounds.seed, f"ticket {begin}"), task.device)
    scale = task.loss_scale(optimizer)
    with masked(task.model, masks) as hold:
        for batch in islice(task.order(rounds.seed, until), begin, None):
            task.model.zero_grad(set_to_none=True)
            loss = task.backward(batch, scale)
            if scale is None:
                optimizer.step()
            if scale is None or scale.step():
                step_scheduler(scheduler, loss)
            hold()
    kept = None if scheduler is None else copy.deepcopy(scheduler.state_dict())
    return _State(state_of(task.model), copy.deepcopy(optimizer.state_dict()), kept)


@contextlib.contextmanager
def masked(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[Any]:
    """Yields what sets removed entries back to zero after a step; inside, no gradient reaches them.

    It is what torch.nn.utils.prune does to all entries that are left, without a copy of each weight in each pass: the
    momentum and the squares that an optimizer keeps, and norms that a step clips, know nothing of removed entries.
    """
    pairs = [(model.get_parameter(name), mask) for name, mask in masks.items()]
    handles: list[Any] = [weight.register_hook(_stopper(mask)) for weight, mask in pairs]  # type: ignore[no-untyped-call]

    def hold() -> None:
        with torch.no_grad():
            for weight, mask in pairs:
                weight.mul_(mask)

    try:
        hold()
        yield hold
    finally:
        for handle in handles:
            handle.remove()


def _stopper(mask: Tensor) -> Any:
    return lambda gradient: gradient * mask


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all parameters and saved buffers by name; tied ones under their first name only."""
    tensors = {**dict(model.named_parameters()), **dict(lasting_buffers(model))}
    return {name: value.detach().clone() for name, value in tensors.items()}
