"""The long training: a plain loop that shares no code with the library's probes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .tasks import BenchTask

FINAL_SHARE = 10
"""The final training loss is the mean over the last tenth of the steps."""
SMOOTH_SHARE = 20
"""Curves are smoothed by a trailing mean over a twentieth of the steps."""
EVALUATION_SEEDS = 1_000_000
"""Added to a seed for the batch orders of the long training: `select` never saw them."""
NEVER_REACHED = 2.0
RATIO_FLOOR = 0.05


@dataclass(frozen=True)
class Run:
    """A finished long training.

    Attributes:
        curve: training loss of every step; shorter than the task's steps where it diverged.
        final_train: mean training loss of the last tenth of the steps; inf where it diverged.
        final_val: loss over all validation rows after the last step; inf where it diverged.
        seconds: wall time of the steps.
    """

    curve: tuple[float, ...]
    final_train: float
    final_val: float
    seconds: float


def batch_order(task: BenchTask, steps: int, seed: int) -> Iterator[Any]:
    """Yields `steps` batches: a new permutation of the training rows for every pass."""
    split = task.load()
    generator = torch.Generator().manual_seed(seed)
    queue: list[torch.Tensor] = []
    for _ in range(steps):
        if not queue:
            rows = torch.randperm(len(split.train_x), generator=generator)
            queue = list(rows[: len(rows) // task.rows * task.rows].split(task.rows))
        rows = queue.pop()
        yield task.batch(split.train_x[rows], split.train_y[rows])


def train(model: nn.Module, task: BenchTask, seed: int, steps: int | None = None) -> Run:
    """Returns the long training of a copy of the model; the model itself is left alone.

    Args:
        model: carries the initial weights.
        task: its data, loss and optimizer.
        seed: of the batch order and of dropout; `EVALUATION_SEEDS` is added.
        steps: instead of the task's own.
    """
    import time

    steps = steps or task.steps
    model = copy.deepcopy(model).train()
    start = time.perf_counter()
    curve = list(losses(model, task, seed, steps))
    seconds = time.perf_counter() - start
    return Run(tuple(curve), final_loss(curve, steps), validate(model, task), seconds)


def losses(model: nn.Module, task: BenchTask, seed: int, steps: int) -> Iterator[float]:
    """Trains the model itself and yields the loss of every step; the first that is not finite is the last."""
    optimizer = task.optimizer(model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(EVALUATION_SEEDS + seed)
        for batch in batch_order(task, steps, EVALUATION_SEEDS + seed):
            optimizer.zero_grad()
            loss = task.loss_of(model, batch)
            loss.backward()
            optimizer.step()
            yield loss.item()
            if not math.isfinite(loss.item()):
                return


def validate(model: nn.Module, task: BenchTask) -> float:
    """Returns the mean loss over all validation rows in evaluation mode; inf where it is not finite."""
    split = task.load()
    model.eval()
    total = 0.0
    with torch.no_grad():
        for rows in torch.arange(len(split.val_x)).split(512):
            loss = task.loss_of(model, task.batch(split.val_x[rows], split.val_y[rows]))
            total += loss.item() * len(rows)
    mean = total / len(split.val_x)
    return mean if math.isfinite(mean) else math.inf


def final_loss(curve: list[float] | tuple[float, ...], steps: int) -> float:
    """Returns the mean of the last tenth of the steps; inf for a curve that ended early or is not finite."""
    if len(curve) < steps:
        return math.inf
    last = curve[-max(1, steps // FINAL_SHARE) :]
    mean = sum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


def steps_ratio(curve: tuple[float, ...], target: float, steps: int) -> float:
    """Returns the share of `steps` after which the smoothed curve first is at or below the target.

    Floored at 0.05 and 2 where never reached, so that a few dead baselines cannot carry a mean.

    Args:
        curve: training loss per step.
        target: as-is's final training loss.
        steps: length of as-is's training.
    """
    if not math.isfinite(target):
        return RATIO_FLOOR
    window = max(1, steps // SMOOTH_SHARE)
    for step in range(window, len(curve) + 1):
        if sum(curve[step - window : step]) / window <= target:
            return max(RATIO_FLOOR, step / steps)
    return NEVER_REACHED
