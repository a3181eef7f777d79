"""Whether a model's training step can be recorded: two candidates, three steps, against the same as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import nn

from ..errors import DeviceError
from ..own.training import ALONE
from ..probing.agreement import Ways, rounding_alike, seen_in, tolerance_of, trainings_differ
from ..probing.bench import Bench
from ..probing.stepping import Eager
from ..recipes.ready_starts import has_ticket
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

NEVER_REPLAYED = "its scheduler sets more than learning rates (as OneCycleLR does with cycle_momentum=True)"
"""Why no step of the optimizer was a replay."""


def why_not(bench: Bench) -> str:
    """Returns why a model's training step cannot be recorded as a CUDA graph; an empty text where it can.

    It is recorded, replayed for two candidates, and compared. The model and all random states are as before
    afterwards.

    Raises:
        DeviceError: the attempt has left the device unusable.
    """
    if has_ticket(bench.graph.starts):
        return "a ticket keeps masks on its weights, which one recorded step for all candidates does not"
    device = bench.task.device
    return refusal(bench.task, CudaCapture(device)) if device.type == "cuda" else "CUDA graphs need a CUDA device"


def refusal(task: Task, capture: Capture) -> str:
    """Returns why a task's training step cannot be recorded in some way; an empty text where it can."""
    return known(task) or tried(task, capture, lambda snapshot: _compared(task, snapshot, capture))


def tried(task: Task, capture: Capture, compare: Callable[[Snapshot], str]) -> str:
    """Returns what a comparison of recorded steps with others finds, or in words why it could not be made.

    Args:
        task: that is compared; its model and all random states are as before afterwards.
        capture: records.
        compare: records and compares; told what to rewind to.

    Raises:
        DeviceError: the attempt has left the device unusable.
    """
    try:
        with task.preserved() as snapshot:
            try:
                with rounding_alike(task.device):
                    return compare(snapshot)
            except Exception as problem:
                why = in_words(problem)
            capture.recover()
            return why
    except DeviceError:
        raise
    except RuntimeError as problem:  # where nothing can be put back on the device either
        raise lost(problem) from problem


def known(task: Task) -> str:
    """Returns what rules a recording out without trying."""
    if task.own is not None:
        return ALONE
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


def _compared(task: Task, snapshot: Snapshot, capture: Capture) -> str:
    """Returns how replayed trainings differ from plain ones; empty where they agree."""
    plain = [seen_in(task, snapshot, trial, STEPS, Eager) for trial in TRIED]
    if any(seen.curve.diverged_at is not None for seen in plain):
        return f"the loss of its own weights is not finite within {STEPS} steps, so nothing can be compared"
    snapshot.rewind()
    recording = Recording(task, capture)
    fitting = dataclasses.replace(task, train=recording.inputs.fitting)
    if len(fitting.train) < len(task.train):  # others came up before
        plain = [seen_in(fitting, snapshot, trial, STEPS, Eager) for trial in TRIED]
    replayed = [seen_in(fitting, snapshot, trial, STEPS, recording.stepper) for trial in TRIED]
    if not recording.replays["step"]:
        return NEVER_REPLAYED
    tolerance = tolerance_of(task)
    pairs = zip(replayed, plain, strict=True)
    return next(filter(None, (trainings_differ(found, expected, tolerance, WAYS) for found, expected in pairs)), "")
