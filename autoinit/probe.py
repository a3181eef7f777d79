"""A short training and the curve it draws. It trains whatever weights it finds and knows nothing of recipes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from .data import Batch, rows
from .optimizers import step_scheduler
from .score import RANGE_STEP, Curve, Glance
from .signals import norms
from .snapshot import seed_generators
from .task import Task

RungReport = Callable[[Curve], bool]
"""Called with the curve so far at each rung; False ends the probe there."""

Screen = Callable[[Glance], bool]
"""Called after the first backward pass, before any step; False ends the probe there."""


def probe(
    task: Task,
    *,
    steps: int,
    seed: int,
    lr_factor: float = 1.0,
    held_back: Sequence[Batch] = (),
    rungs: Sequence[int] = (),
    on_rung: RungReport = lambda curve: True,
    screen: Screen = lambda glance: True,
) -> Curve:
    """Returns the curve of a short training of the model's present weights, which it changes.

    Seeds the global generators, so that dropout and augmentation are alike for all candidates: call it inside
    `task.preserved()`, which puts them back.

    Args:
        task: what to train and how.
        steps: at the most.
        seed: of the batch order and of dropout.
        lr_factor: on every group's learning rate.
        held_back: batches whose mean loss is taken at each rung and at the end.
        rungs: steps at which to evaluate and to ask `on_rung`; the end is always one.
        on_rung: may end the probe.
        screen: may end it after one forward and backward pass.
    """
    seed_generators(seed, task.device)
    if not task.model.training:
        task.model.train()
    started = time.perf_counter()
    stops = {*(rung for rung in rungs if rung < steps), steps}
    range_steps = {RANGE_STEP, min(RANGE_STEP, *stops)}
    optimizer, scheduler = task.build_optimizer(lr_factor)
    scale = task.loss_scale(optimizer)
    trained = [p for p in task.model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    losses: list[float] = []
    evaluated: list[tuple[int, float]] = []
    by_batch: list[float] = []
    gradient_range: float | None = None
    glance: Glance | None = None
    range_due = False

    def curve(diverged_at: int | None = None) -> Curve:
        seconds = time.perf_counter() - started
        return Curve(tuple(losses), tuple(evaluated), gradient_range, diverged_at, seconds, tuple(by_batch), glance)

    for step, batch in enumerate(task.order(seed, steps), start=1):
        for parameter in trained:  # what optimizer.zero_grad does, without its tenth of a millisecond
            parameter.grad = None
        loss = task.backward(batch, scale)
        losses.append(loss)
        if not math.isfinite(loss):
            return curve(diverged_at=step)
        if glance is None:
            seen = _glance(losses[0], matrices)
            # Where the loss scale is still too high, the gradients tell of the scale and not of the weights.
            if scale is None or math.isfinite(seen.gradient_norm) or step == RANGE_STEP:
                glance = seen
                if not screen(glance):
                    return curve()
        if range_due or step in range_steps:
            each = _gradient_norms(matrices)
            range_due = scale is not None and not all(map(math.isfinite, each))
            gradient_range = log_range(each)
        if scale is None:
            optimizer.step()
        if scale is None or scale.step():
            step_scheduler(scheduler, loss)
        if step in stops:
            if held_back:
                by_batch = evaluate(task, held_back)
                evaluated.append((step, mean_per_row(by_batch, held_back)))
                if not math.isfinite(evaluated[-1][1]):
                    return curve(diverged_at=step)
            if not on_rung(curve()):
                break
    return curve()


def evaluate(task: Task, batches: Sequence[Batch]) -> list[float]:
    """Returns the loss of each batch, in eval mode, without training on them."""
    with eval_mode(task.model):
        return task.evaluate(batches)


def mean_per_row(losses: Sequence[float], batches: Sequence[Batch]) -> float:
    """Returns the mean loss per row."""
    weights = [rows(batch) for batch in batches]
    return sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts every submodule into eval mode, and each one's own flag back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _glance(loss: float, parameters: Sequence[Tensor]) -> Glance:
    each = _gradient_norms(parameters)
    return Glance(loss, math.hypot(*each), log_range(each))


def _gradient_norms(parameters: Sequence[Tensor]) -> list[float]:
    return norms([p.grad for p in parameters if p.grad is not None])


def log_range(each: Sequence[float]) -> float | None:
    """Returns log10 of the largest over the smallest gradient norm; inf where only some are zero."""
    finite = [norm for norm in each if math.isfinite(norm)]
    if len(finite) < 2 or max(finite) == 0:
        return None
    return math.log10(max(finite) / min(finite)) if min(finite) > 0 else math.inf
