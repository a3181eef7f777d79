"""Whether a model can be trained in a stack: two candidates, two steps, against the same one after the other."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

from ..errors import described
from ..judging.budget import Tally
from ..judging.score import Curve
from ..judging.trials import Candidate, Job
from ..own.training import ALONE
from ..probing.agreement import (
    Ways,
    changed_attribute,
    gradients_differ,
    losses_differ,
    rounding_alike,
    scale_weights,
    state_of,
    tolerance_of,
)
from ..probing.bench import Bench
from ..probing.probe import probe
from ..recipes.ready_starts import has_ticket
from ..recipes.recipe import OWN
from ..task.assign import derived_name
from ..task.snapshot import Snapshot
from ..task.task import Task
from .elementwise import why_not_elementwise
from .lockstep import Lane, lockstep
from .plain_attention import plain_attention
from .stack import Stack, moving_buffers

TRIED = (1.0, 0.9)
"""Factors on the weights of the two candidates that are tried: they have to differ, or a mix-up would go unseen."""

STEPS = 2
"""The second step sees what the first did to weights, optimizer and buffers."""

WAYS = Ways("in a stack", "by itself", "a stack and a training by itself", "in a stack from that by itself")


def why_not(bench: Bench) -> str:
    """Returns why candidates of a model cannot be trained in a stack; an empty text where they can.

    A stack of two is trained for two steps and compared with the same one after the other. The model and all random
    states are as before afterwards.
    """
    if known := _known(bench.task) or _copies(bench):
        return known
    # TF32 rounds a stack's products elsewhere, and a fused attention draws its dropout elsewhere: these are no reasons.
    alike = rounding_alike(bench.task.device)
    with alike, plain_attention(), bench.task.preserved() as snapshot, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            found = _compared(bench.task, snapshot)
        except Exception as problem:
            return f"torch.vmap cannot run it ({described(problem)})"
    slow = [str(warning.message) for warning in seen if "batching rule" in str(warning.message)]
    return f"torch.vmap would run a part of it one by one ({slow[0].splitlines()[0]})" if slow else found


def _known(task: Task) -> str:
    """Returns what rules a stack out without trying."""
    if task.own is not None:
        return ALONE
    if task._own_backward:
        return "the step calls backward itself"
    parameters = list(task.model.parameters())
    unusual = {type(parameter).__name__ for parameter in parameters} - {nn.Parameter.__name__}
    if unusual:
        return f"some of its parameters are no plain tensors ({', '.join(sorted(unusual))})"
    if any(parameter._backward_hooks or parameter._post_accumulate_grad_hooks for parameter in parameters):
        return "hooks on the gradients of its parameters would see several candidates' at once"
    if why := why_not_elementwise(task):
        return why
    if task.loss_scale(task.build_optimizer()[0]) is not None:
        return "in float16 each candidate needs a loss scale of its own; bfloat16 needs none"
    return ""


def _copies(bench: Bench) -> str:
    """Returns why copies of weights rule a stack out: it holds what is trained, and shares all frozen weights."""
    if any(layer.lends for layer in bench.graph.layers):
        return "adapters may take from the frozen weights beside them, which a stack has once for all candidates"
    if has_ticket(bench.graph.starts):
        return "a ticket keeps masks on its weights, and a stack has one training step for all candidates"
    frozen = {derived_name(name) for name, p in bench.task.model.named_parameters() if not p.requires_grad}
    copies = [layer.name for layer in bench.graph.layers if layer.copy_of and layer.name in frozen]
    return f"its frozen weights are copies of others ({copies[0]}), one for each candidate" if copies else ""


def _compared(task: Task, snapshot: Snapshot) -> str:
    """Returns how a stack's losses or gradients differ from those of trainings one by one; empty where they agree."""
    held_back = task.probe_eval[:1]
    moving = moving_buffers(task)
    lanes = [Lane(Job(place, "search", Candidate(OWN), 0, STEPS), Tally()) for place in range(len(TRIED))]
    curves: list[Curve] = []
    gradients: list[dict[str, Tensor]] = []
    stack = Stack(task, len(TRIED), moving)
    for factor in TRIED:
        snapshot.rewind()
        scale_weights(task, factor)
        stack.add()
        curves.append(probe(task, steps=STEPS, seed=0, held_back=held_back))
        gradients.append({name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None})
    snapshot.rewind()
    stack.start([1.0] * len(TRIED))
    before = state_of(task.model)
    for _ in lockstep(task, stack, lanes, lambda step: held_back):
        pass
    if key := changed_attribute(before, state_of(task.model)):  # other stacks would take it for theirs
        return f"its attribute {key} changes from step to step and is no buffer; register_buffer would let it stack"
    if any(curve.diverged_at is not None for curve in curves):
        return "the loss of its own weights is not finite within two steps, so nothing can be compared"
    tolerance = tolerance_of(task)
    for place, (lane, curve) in enumerate(zip(lanes, curves, strict=True)):
        why = losses_differ(lane.recorder.curve(), curve, tolerance, WAYS) or gradients_differ(
            stack.gradients(place), gradients[place], tolerance, WAYS
        )
        if why:
            return why
    return ""
