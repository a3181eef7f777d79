"""Whether a stack's training step can be recorded: two groups of two, three steps, against the same plain stacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from ..judging.budget import Tally
from ..judging.trials import Candidate, Job
from ..probing.agreement import Seen, Ways, scale_weights, tolerance_of, trainings_differ
from ..probing.bench import Bench
from ..recipes.recipe import OWN
from ..stacks.elementwise import mixes_rates
from ..stacks.lockstep import Lane, lockstep
from ..stacks.stack import Stack, moving_buffers
from ..task.snapshot import Snapshot
from ..task.task import Task
from .capturable import NEVER_REPLAYED, STEPS, known, tried
from .capture import Capture, CudaCapture
from .recorded_stack import RecordedStack, ReplayedStack

Trial = tuple[float, float]
"""Factors on the weights and on the learning rate of a candidate."""

MIXED: tuple[tuple[Trial, Trial], ...] = (((1.0, 1.0), (0.9, 0.5)), ((0.9, 0.5), (1.0, 0.5)))
"""Two groups: what was recorded along would show in a second one of other weights at other rates."""
ALIKE: tuple[tuple[Trial, Trial], ...] = (((1.0, 1.0), (0.9, 1.0)), ((0.9, 0.5), (1.0, 0.5)))
"""Likewise where a stack has one learning rate."""

WAYS = Ways("in a replayed stack", "in a plain one", "a replayed stack and a plain one", "in a replayed stack")


def why_not(bench: Bench) -> str:
    """Returns why the training step of a stack cannot be recorded as a CUDA graph; an empty text where it can.

    Only for models that stack. It is recorded, replayed for two candidates and then for two others, and compared. The
    model and all random states are as before afterwards.

    Raises:
        DeviceError: the attempt has left the device unusable.
    """
    device = bench.task.device
    return refusal(bench.task, CudaCapture(device)) if device.type == "cuda" else "CUDA graphs need a CUDA device"


def refusal(task: Task, capture: Capture) -> str:
    """Returns why a stack's training step cannot be recorded in some way; an empty text where it can."""
    return known(task) or tried(task, capture, lambda snapshot: _compared(task, snapshot, capture))


def _compared(task: Task, snapshot: Snapshot, capture: Capture) -> str:
    """Returns how replayed stacks differ from plain ones, which train as their candidates by themselves do."""
    moving = moving_buffers(task)
    snapshot.rewind()
    groups = MIXED if mixes_rates(task) else ALIKE
    recorded = RecordedStack(task, len(groups[0]), moving, capture)
    fitting = dataclasses.replace(task, train=recorded.inputs.fitting)
    tolerance = tolerance_of(task)
    for trials in groups:
        plain = _seen(fitting, snapshot, trials, Stack(fitting, len(trials), moving))
        if any(seen.curve.diverged_at is not None for seen in plain):
            return f"the loss of its own weights is not finite within {STEPS} steps, so nothing can be compared"
        stack = ReplayedStack(fitting, len(trials), moving, recorded, lambda count: recorded)
        for found, expected in zip(_seen(fitting, snapshot, trials, stack), plain, strict=True):
            if why := trainings_differ(found, expected, tolerance, WAYS):
                return why
    return "" if recorded.replays["step"] else NEVER_REPLAYED


def _seen(task: Task, snapshot: Snapshot, trials: Sequence[Trial], stack: Stack) -> list[Seen]:
    """Returns what a stack's candidates show in a short training."""
    held_back = task.probe_eval[:1]
    lanes = [Lane(Job(place, "search", Candidate(OWN), 0, STEPS), Tally()) for place in range(len(trials))]
    for factor, _ in trials:
        snapshot.rewind()
        scale_weights(task, factor)
        stack.add()
    snapshot.rewind()
    stack.start([rate for _, rate in trials])
    numbers = [lane.job.number for lane in lanes]
    before = [_numbers(stack.values(number)) for number in numbers]
    for _ in lockstep(task, stack, lanes, lambda step: held_back):
        pass
    return [
        Seen(lane.recorder.curve(), stack.gradients(number), was, _numbers(stack.values(number)))
        for lane, number, was in zip(lanes, numbers, before, strict=True)
    ]


def _numbers(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns those of some tensors that can be subtracted from each other."""
    return {name: value for name, value in values.items() if value.dtype != torch.bool}
