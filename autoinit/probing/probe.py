"""A short training and the curve it draws. It trains whatever weights it finds and knows nothing of recipes."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Sequence

from torch import Tensor

from ..judging.score import Curve, Glance
from ..task.batches import Batch
from ..task.machine import numbers, runs_ahead
from ..task.snapshot import seed_generators
from ..task.task import Task
from .own_steps import OwnSteps
from .recorder import Recorder
from .stepping import Eager, MakeStepper, Stepper

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
    stepper: MakeStepper = Eager,
) -> Curve:
    """Returns the curve of a short training of the model's present weights, which it changes.

    See `Training` for the arguments, and for what has to be around it.
    """
    with contextlib.closing(Training(task, seed=seed, lr_factor=lr_factor, stepper=stepper)) as training:
        return training.go_on(steps, held_back=lambda step: held_back, rungs=rungs, on_rung=on_rung, screen=screen)


class Training:
    """A short training of a model, from its present weights on; it can go on where it stopped.

    Seeds the global generators, so that dropout and augmentation are alike for all candidates: make and use it inside
    `task.preserved()`, which puts them back.

    Args:
        task: what to train and how.
        seed: of the batch order and of dropout.
        lr_factor: on every group's learning rate.
        stepper: makes what takes the steps; a training that its owner wrote takes its own.
    """

    def __init__(self, task: Task, *, seed: int, lr_factor: float = 1.0, stepper: MakeStepper = Eager) -> None:
        seed_generators(seed, task.device)
        self._task = task
        self._stepper: Stepper = stepper(task, lr_factor) if task.own is None else OwnSteps(task.own, task.model, seed)
        # A training that its owner wrote makes its own batches.
        self._batches = itertools.repeat(()) if self._stepper.whole else task.order(seed, sys.maxsize)
        self._trained = [p for p in task.model.parameters() if p.requires_grad]
        self._recorder = Recorder(scaled=self._stepper.scaled)
        self._unread: list[Tensor | float] = []

    @property
    def steps(self) -> int:
        """Training steps done so far."""
        return self._recorder.steps

    @property
    def drops_gradients(self) -> bool:
        """Whether each of its steps begins without gradients; one that its owner wrote may add them up over several."""
        return not self._stepper.whole

    def kept(self) -> list[Tensor]:
        """Returns the tensors that it keeps from step to step beside the model's."""
        return self._stepper.kept()

    def close(self) -> None:
        """Ends it where it stands; a training that its owner wrote closes what it has opened."""
        self._stepper.close()

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
        task, trained, stepper, recorder = self._task, self._trained, self._stepper, self._recorder
        if not (stepper.whole or task.model.training):
            task.model.train()
        started, before, ahead = time.perf_counter(), recorder.seconds, runs_ahead(task.device)
        recorder.go_on(steps, rungs)
        matrices = [p for p in trained if p.ndim > 1] or trained  # biases or scales of normalizations may train alone

        def curve() -> Curve:
            recorder.seconds = before + time.perf_counter() - started
            return recorder.curve()

        for batch in itertools.islice(self._batches, steps - self.steps):
            if stepper.whole and recorder.gradients_next:
                stepper.watch(matrices)
            loss = stepper.backward(batch)
            self._unread.append(loss)
            recorder.pass_by()
            if (not ahead or recorder.loss_due) and not self._read():
                return curve()
            if recorder.glance is None and not recorder.blind:
                each = stepper.norms(matrices)
                recorder.blind = stepper.whole and not each
                seen = None if recorder.blind else recorder.look(each)
                if seen is not None and not screen(seen):
                    return curve()
            if recorder.range_due:
                recorder.take_range(stepper.norms(matrices))
            stepper.step(loss)
            if recorder.stops_here:
                batches = held_back(self.steps)
                if batches and not recorder.evaluate(task.evaluate(batches), batches):
                    return curve()
                if not on_rung(curve()):
                    break
        return curve()

    def _read(self) -> bool:
        """Reads the losses of the steps since it was last done; returns whether all are finite."""
        read = iter(numbers([value for value in self._unread if isinstance(value, Tensor)]))
        losses = [next(read) if isinstance(value, Tensor) else value for value in self._unread]
        self._unread.clear()
        return self._recorder.read(losses)
