"""Whether a stack's training step can be recorded: two groups of two, three steps, against the same one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from ..judging.budget import Tally
from ..judging.trials import Candidate, Job
from ..probing.agreement import Seen, Ways, scale_weights, seen_in, tolerance_of, trainings_differ
from ..probing.bench import Bench
from ..probing.stepping import Eager
from ..recipes.recipe import OWN
from ..stacks.attention import plain_attention
from ..stacks.elementwise import mixes_rates
from ..stacks.lockstep import Lane, lockstep
from ..stacks.stack import moving_buffers
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

WAYS = Ways("in a replayed stack", "by itself", "a replayed stack and a training by itself", "in a replayed stack")


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

    def compare(snapshot: Snapshot) -> str:
        with plain_attention():  # a fused one draws its dropout elsewhere: that is no reason
            return _compared(task, snapshot, capture)

    return known(task) or tried(task, capture, compare)


def _compared(task: Task, snapshot: Snapshot, capture: Capture) -> str:
    """Returns how replayed stacks differ from trainings one by one; empty where they agree."""
    moving = moving_buffers(task)
    snapshot.rewind()
    groups = MIXED if mixes_rates(task) else ALIKE
    recorded = RecordedStack(task, len(groups[0]), moving, capture)
    fitting = dataclasses.replace(task, train=recorded.inputs.fitting)
    tolerance = tolerance_of(task)
    for trials in groups:
        expected = [seen_in(fitting, snapshot, trial, STEPS, Eager) for trial in trials]
        if any(seen.curve.diverged_at is not None for seen in expected):
            return f"the loss of its own weights is not finite within {STEPS} steps, so nothing can be compared"
        stack = ReplayedStack(fitting, len(trials), moving, recorded, lambda count: recorded)
        for seen, by_itself in zip(_seen(fitting, snapshot, trials, stack), expected, strict=True):
            if why := trainings_differ(seen, by_itself, tolerance, WAYS):
                return why
    return "" if recorded.replays["step"] else NEVER_REPLAYED


def _seen(task: Task, snapshot: Snapshot, trials: Sequence[Trial], stack: ReplayedStack) -> list[Seen]:
    """Returns what a stack's candidates show in a short training."""
    held_back = task.probe_eval[:1]
    lanes = [Lane(Job(place, "search", Candidate(OWN), 0, STEPS), Tally()) for place in range(len(trials))]
    for factor, _ in trials:
        snapshot.rewind()
        scale_weights(task, factor)
        stack.add()
    snapshot.rewind()
    stack.start([rate for _, rate in trials])
    before = [stack.values(lane.job.number) for lane in lanes]
    for _ in lockstep(task, stack, lanes, lambda step: held_back):
        pass
    found = []
    for lane, was in zip(lanes, before, strict=True):
        now = stack.values(lane.job.number)
        changes = {name: now[name] - values for name, values in was.items() if values.dtype != torch.bool}
        found.append(Seen(lane.recorder.curve(), stack.gradients(lane.job.number), changes))
    return found
