"""A short training and the curve it draws. It trains whatever weights it finds and knows nothing of recipes."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ..judging.score import RANGE_STEP, Curve, Glance
from ..task.batches import Batch, rows
from ..task.optimizers import step_scheduler
from ..task.snapshot import seed_generators
from ..task.task import Task
from .signals import norms

RungReport = Callable[[Curve], bool]
"""Called with the curve so far at each rung; False ends the probe there."""

HeldBack = Callable[[int], Sequence[Batch]]
"""Returns the batches to evaluate on after so many steps."""

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

    See `Training` for the arguments, and for what has to be around it.
    """
    training = Training(task, seed=seed, lr_factor=lr_factor)
    return training.go_on(steps, held_back=lambda step: held_back, rungs=rungs, on_rung=on_rung, screen=screen)


class Training:
    """A short training of a model, from its present weights on; it can go on where it stopped.

    Seeds the global generators, so that dropout and augmentation are alike for all candidates: make and use it inside
    `task.preserved()`, which puts them back.

    Attributes:
        optimizer: with its state.

    Args:
        task: what to train and how.
        seed: of the batch order and of dropout.
        lr_factor: on every group's learning rate.
    """

    def __init__(self, task: Task, *, seed: int, lr_factor: float = 1.0) -> None:
        seed_generators(seed, task.device)
        self._task = task
        self.optimizer, self._scheduler = task.build_optimizer(lr_factor)
        self._scale = task.loss_scale(self.optimizer)
        self._batches = task.order(seed, sys.maxsize)
        self._trained = [p for p in task.model.parameters() if p.requires_grad]
        self._losses: list[float] = []
        self._evaluated: list[tuple[int, float]] = []
        self._by_batch: list[float] = []
        self._gradient_range: float | None = None
        self._glance: Glance | None = None
        self._range_due = False
        self._diverged_at: int | None = None
        self._seconds = 0.0

    @property
    def steps(self) -> int:
        """Training steps done so far."""
        return len(self._losses)

    def go_on(
        self,
        steps: int,
        *,
        held_back: HeldBack = lambda step: (),
        rungs: Sequence[int] = (),
        on_rung: RungReport = lambda curve: True,
        screen: Screen = lambda glance: True,
    ) -> Curve:
        """Returns the curve from the first step on, after training until so many steps have been done in all.

        Args:
            steps: at the most, those of before included.
            held_back: batches whose mean loss is taken at each rung and at the end.
            rungs: steps at which to evaluate and to ask `on_rung`; the end is always one.
            on_rung: may end the training.
            screen: may end it after the first forward and backward pass.
        """
        task, trained, scale, losses = self._task, self._trained, self._scale, self._losses
        if not task.model.training:
            task.model.train()
        started, before = time.perf_counter(), self._seconds
        stops = {*(rung for rung in rungs if rung < steps), steps}
        range_steps = {RANGE_STEP} if self.steps else {RANGE_STEP, min(RANGE_STEP, *stops)}
        matrices = [p for p in trained if p.ndim > 1]

        def curve() -> Curve:
            self._seconds = before + time.perf_counter() - started
            return self._curve()

        for step, batch in enumerate(itertools.islice(self._batches, steps - self.steps), start=self.steps + 1):
            for parameter in trained:  # what optimizer.zero_grad does, without its tenth of a millisecond
                parameter.grad = None
            loss = task.backward(batch, scale)
            losses.append(loss)
            if not math.isfinite(loss):
                self._diverged_at = step
                return curve()
            if self._glance is None:
                seen = _glance(losses[0], matrices)
                # Where the loss scale is still too high, the gradients tell of the scale and not of the weights.
                if scale is None or math.isfinite(seen.gradient_norm) or step == RANGE_STEP:
                    self._glance = seen
                    if not screen(seen):
                        return curve()
            if self._range_due or step in range_steps:
                each = _gradient_norms(matrices)
                self._range_due = scale is not None and not all(map(math.isfinite, each))
                self._gradient_range = log_range(each)
            if scale is None:
                self.optimizer.step()
            if scale is None or scale.step():
                step_scheduler(self._scheduler, loss)
            if step in stops:
                if batches := held_back(step):
                    self._by_batch = evaluate(task, batches)
                    self._evaluated.append((step, mean_per_row(self._by_batch, batches)))
                    if not math.isfinite(self._evaluated[-1][1]):
                        self._diverged_at = step
                        return curve()
                if not on_rung(curve()):
                    break
        return curve()

    def _curve(self) -> Curve:
        return Curve(
            tuple(self._losses),
            tuple(self._evaluated),
            self._gradient_range,
            self._diverged_at,
            self._seconds,
            tuple(self._by_batch),
            self._glance,
        )


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
