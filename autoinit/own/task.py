"""The task of a training that its owner wrote: checked by its first steps, with what its architecture is read from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..errors import StepError
from ..task.batches import Batch, move
from ..task.casting import Numbers
from ..task.checks import check_memory, check_trainable, check_weights, device_of, unwrap
from ..task.data import check_finite, first_batch
from ..task.losses import Loss
from ..task.snapshot import preserved_random
from ..task.task import Task, autocast_of, examine
from .leaks import check_repeats
from .training import OwnTraining


def own_task(
    model: nn.Module,
    *,
    train: Any,
    example: Any = None,
    validate: Any = None,
    timeout: float | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Task:
    """Returns the task of a training that its owner wrote, after its first steps were run twice as a check.

    Args:
        model: any module with a trainable parameter.
        train: called as train(model, seed), returns a generator that yields a number after each step.
        example: what the architecture is read from: an input, a batch, or a callable (model) -> scalar; None for the
            module tree.
        validate: called as validate(model, part), returns held-back values; None where nothing is held back.
        timeout: seconds that a step may take; None for five minutes.
        device: where to train; where None, where the model is.
        seed: of the search.

    Raises:
        StepError: the training or `validate` does not do what is asked of it, or does not repeat itself.
        DataError, ModelError: the example does not fit the model, or reaches none of its parameters.
    """
    model = unwrap(model)
    check_trainable(model)
    own = OwnTraining(train, validate, timeout)
    target = device_of(model, device)
    check_memory(target, "train")
    check_weights(model)
    called = callable(example) and not isinstance(example, nn.Module)
    batches: list[Batch] = []
    if called:
        batches = [()]
    elif example is not None:
        with torch.inference_mode(False), preserved_random():
            batches = [move(first_batch(example, numbers=Numbers.of(model)), target)]
            check_finite(batches, "example")
    task = Task(
        model=model,
        device=target,
        autocast=autocast_of(None, target),
        train=tuple(batches),
        lr=None,
        optimizer_name="its own",
        seed=seed,
        own=own,
        _loss=Loss(step=(lambda model, batch: example(model)) if called else None, example=True, source="example"),
    )
    with task.preserved() as snapshot:
        if batches and not math.isfinite(loss := examine(task, snapshot)):
            raise StepError(f"example gives {loss}, and has to give a finite number. Take another input for it.")
        check_repeats(own, model, snapshot)
        task.probe_eval, task.gate_eval = own.parts(model)
        task.loss_name = "train"
    return task
