"""Whether a model's training step can be recorded: two candidates, three steps, against the same as they are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import DeviceError
from ..judging.score import Curve
from ..probing.agreement import (
    GRADIENTS,
    NEGLIGIBLE,
    Ways,
    are_close,
    gradients_differ,
    losses_differ,
    norm,
    norm_of_all,
    scale_weights,
    tolerance_of,
)
from ..probing.bench import Bench
from ..probing.probe import probe
from ..probing.stepping import Eager, MakeStepper
from ..task.snapshot import Snapshot
from ..task.task import Task
from .capture import Capture, CudaCapture, in_words, lost
from .lasting import why_not_lasting
from .recorded import Recording

TRIED = ((1.0, 1.0), (0.9, 0.5))
"""Factors on the weights and on the learning rate of two candidates: a number that was recorded along would show."""

STEPS = 3
"""The first step is the optimizer's own; the third sees what a replayed one did to weights, state and buffers."""


WAYS = Ways("in a replay", "without", "a replay and a plain step", "in a replay")


def why_not(bench: Bench) -> str:
    """Returns why a model's training step cannot be recorded as a CUDA graph; an empty text where it can.

    It is recorded, replayed for two candidates, and compared. The model and all random states are as before
    afterwards.

    Raises:
        DeviceError: the attempt has left the device unusable.
    """
    device = bench.task.device
    return refusal(bench.task, CudaCapture(device)) if device.type == "cuda" else "CUDA graphs need a CUDA device"


def refusal(task: Task, capture: Capture) -> str:
    """Returns why a task's training step cannot be recorded in some way; an empty text where it can."""
    if known := _known(task):
        return known
    try:
        with task.preserved() as snapshot:
            try:
                return _compared(task, snapshot, capture)
            except Exception as problem:
                why = in_words(problem)
            capture.recover()
            return why
    except DeviceError:
        raise
    except RuntimeError as problem:  # where nothing can be put back on the device either
        raise lost(problem) from problem


def _known(task: Task) -> str:
    """Returns what rules a recording out without trying."""
    kinds = {type(parameter) for parameter in task.model.parameters()} - {nn.Parameter}
    if kinds:
        return f"some of its parameters are no plain tensors ({', '.join(sorted(kind.__name__ for kind in kinds))})"
    with task.preserved():
        own = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
        elsewhere = [(name, tensor.device) for name, tensor in own.items() if tensor.device != task.device]
        if elsewhere:
            return "its {} lies on another device, {}".format(*elsewhere[0])
        optimizer, _ = task.build_optimizer()
        if why := why_not_lasting(optimizer):
            return why
        if task.loss_scale(optimizer) is not None:
            return "in float16 the loss scale is set on the host after each step; bfloat16 needs none"
    return ""


@dataclass(frozen=True)
class _Seen:
    """What a short training has shown.

    Attributes:
        curve: its losses.
        gradients: at its last step, by name.
        changes: of each weight and buffer in all, by name.
    """

    curve: Curve
    gradients: dict[str, Tensor]
    changes: dict[str, Tensor]


def _compared(task: Task, snapshot: Snapshot, capture: Capture) -> str:
    """Returns how replayed trainings differ from plain ones; empty where they agree."""
    plain = [_seen(task, snapshot, trial, Eager) for trial in TRIED]
    if any(seen.curve.diverged_at is not None for seen in plain):
        return f"the loss of its own weights is not finite within {STEPS} steps, so nothing can be compared"
    snapshot.rewind()
    recording = Recording(task, capture)
    fitting = dataclasses.replace(task, train=recording.fitting)
    if len(recording.fitting) < len(task.train):  # others came up before
        plain = [_seen(fitting, snapshot, trial, Eager) for trial in TRIED]
    replayed = [_seen(fitting, snapshot, trial, recording.stepper) for trial in TRIED]
    if not recording.replays["step"]:
        return "its scheduler sets more than learning rates (as OneCycleLR does with cycle_momentum=True)"
    tolerance = tolerance_of(task)
    differences = (_difference(found, expected, tolerance) for found, expected in zip(replayed, plain, strict=True))
    return next(filter(None, differences), "")


def _seen(task: Task, snapshot: Snapshot, trial: tuple[float, float], stepper: MakeStepper) -> _Seen:
    """Returns what a training from the owner's weights, times a factor, shows."""
    factor, lr_factor = trial
    snapshot.rewind()
    scale_weights(task, factor)
    before = {name: tensor.clone() for name, tensor in _moving(task.model).items()}
    batches = task.probe_eval[:1]
    curve = probe(task, steps=STEPS, seed=0, lr_factor=lr_factor, held_back=batches, stepper=stepper)
    gradients = {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}
    changes = {name: tensor - before[name] for name, tensor in _moving(task.model).items() if name in before}
    return _Seen(curve, gradients, changes)


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """Returns the trained weights, and the buffers of numbers."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return weights | {name: buffer for name, buffer in model.named_buffers() if buffer.dtype != torch.bool}


def _difference(found: _Seen, expected: _Seen, tolerance: float) -> str:
    if why := losses_differ(found.curve, expected.curve, tolerance, WAYS):
        return why
    if why := gradients_differ(found.gradients, expected.gradients, tolerance, WAYS):
        return why
    whole = norm_of_all(expected.gradients)
    for name, change in expected.changes.items():
        # An optimizer like Adam moves a weight as far by a gradient that is rounding as by any other.
        rounding = name in expected.gradients and norm(expected.gradients[name]) <= NEGLIGIBLE * whole
        if not rounding and not are_close(found.changes[name], change, GRADIENTS * tolerance, 0.0):
            return f"{name} comes to be another in replays than in plain steps"
    return ""
