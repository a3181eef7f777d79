"""Whether two ways of training the same weights agree up to rounding, and what a training leaves in the modules."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..initializers.filling import full_float32
from ..judging.score import Curve
from ..task.machine import ordered_sums
from ..task.snapshot import Snapshot
from ..task.task import Task
from .probe import probe
from .stepping import MakeStepper

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Relative difference of two losses that rounding explains; libraries that compute the loss of a double model in single
precision are why float64's is this large."""
LOW_PRECISION = 0.05
GRADIENTS = 10.0
"""Gradients round so many times more."""
NEGLIGIBLE = 1e-5
"""Share of the whole gradient below which a weight's own is rounding, as a key's bias in attention has."""
ROUNDINGS = 4
"""Of a weight's last digit, by which it may differ after a few steps."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What two ways of training are called where they differ.

    Attributes:
        here: the one that is tried, as in "its loss is 1 in a stack".
        there: the one that it shall agree with, as in "2 by itself".
        both: who differ.
        gradient: in which a gradient differs.
    """

    here: str
    there: str
    both: str
    gradient: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a short training has shown.

    Attributes:
        curve: its losses.
        gradients: at its last step, by name.
        before: each weight and buffer, by name.
        after: likewise.
    """

    curve: Curve
    gradients: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


@contextlib.contextmanager
def rounding_alike(device: torch.device) -> Iterator[None]:
    """Has two ways of training differ by nothing on a GPU that says nothing of them.

    TF32 keeps three digits of a product, and the fastest sums take any order. A normalization divides by what is left
    of such differences, and a few steps on no digit agrees.
    """
    with full_float32(device), ordered_sums():
        yield


def seen_in(task: Task, snapshot: Snapshot, factors: tuple[float, float], steps: int, stepper: MakeStepper) -> Seen:
    """Returns what a training from the owner's weights shows.

    Args:
        task: what is trained.
        snapshot: to rewind to.
        factors: on the weights before, and on the learning rate.
        steps: of the training.
        stepper: makes what takes them.
    """
    snapshot.rewind()
    scale_weights(task, factors[0])
    before = {name: tensor.clone() for name, tensor in _moving(task.model).items()}
    batches = task.probe_eval[:1]
    curve = probe(task, steps=steps, seed=0, lr_factor=factors[1], held_back=batches, stepper=stepper)
    gradients = {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}
    after = {name: tensor.clone() for name, tensor in _moving(task.model).items() if name in before}
    return Seen(curve, gradients, before, after)


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """Returns the trained weights, and the buffers of numbers."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return weights | {name: buffer for name, buffer in model.named_buffers() if buffer.dtype != torch.bool}


def trainings_differ(found: Seen, expected: Seen, tolerance: float, ways: Ways) -> str:
    """Returns how two short trainings differ by more than rounding; empty where they do not."""
    if why := losses_differ(found.curve, expected.curve, tolerance, ways):
        return why
    if why := gradients_differ(found.gradients, expected.gradients, tolerance, ways):
        return why
    whole = norm_of_all(expected.gradients)
    for name, after in found.after.items():
        change, other = (seen.after[name] - seen.before[name] for seen in (found, expected))
        gradient = expected.gradients.get(name)
        if gradient is not None and not gradient.is_sparse:
            # An optimizer like Adam moves an entry as far by a gradient that is rounding as by any other: a bias of
            # attention's keys, which changes nothing, or that third of a bias of queries, keys and values.
            moved = gradient.abs() > NEGLIGIBLE * whole
            change, other = change * moved, other * moved
        # What is stored is rounded to its last digit after each step, however small the step.
        digits = ROUNDINGS * torch.finfo(after.dtype).eps * norm(after) if after.is_floating_point() else 0.0
        if not are_close(change, other, GRADIENTS * tolerance, digits):
            return f"{name} comes to be another {ways.here} than {ways.there}"
    return ""


@torch.no_grad()
def scale_weights(task: Task, factor: float) -> None:
    """Multiplies all trainable weights."""
    for parameter in task.model.parameters():
        if parameter.requires_grad:
            parameter.mul_(factor)


def tolerance_of(task: Task) -> float:
    """Returns by what share two losses of a task may differ by rounding."""
    kinds = {parameter.dtype for parameter in task.model.parameters() if parameter.is_floating_point()}
    if task.autocast is not None:
        kinds.add(task.autocast)
    return max(TOLERANCES.get(kind, LOW_PRECISION) for kind in kinds)


def losses_differ(found: Curve, expected: Curve, tolerance: float, ways: Ways) -> str:
    """Returns which loss of two short trainings differs by more than rounding; empty where none does."""
    pairs = [
        *(("training", a, b) for a, b in zip(found.losses, expected.losses, strict=False)),
        *(("held-back", a, b) for (_, a), (_, b) in zip(found.held_back, expected.held_back, strict=False)),
    ]
    for kind, loss, other in pairs:
        if not math.isclose(loss, other, rel_tol=tolerance, abs_tol=1e-3 * tolerance):
            return f"its {kind} loss is {loss:.6g} {ways.here}, {other:.6g} {ways.there}"
    return ""


def gradients_differ(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, ways: Ways) -> str:
    """Returns which weight's gradient differs by more than rounding; empty where none does."""
    if found.keys() != expected.keys():
        names = ", ".join(sorted(found.keys() ^ expected.keys())[:3])
        return f"{ways.both} differ in which weights have a gradient ({names})"
    whole = norm_of_all(expected)
    for name, gradient in expected.items():
        if not are_close(found[name], gradient, GRADIENTS * tolerance, NEGLIGIBLE * whole):
            return f"the gradient of {name} differs {ways.gradient}"
    return ""


def norm_of_all(tensors: dict[str, Tensor]) -> float:
    """Returns the norm of some tensors together."""
    return math.hypot(*map(norm, tensors.values()))


def are_close(found: Tensor, expected: Tensor, relative: float, absolute: float) -> bool:
    """Whether two tensors differ by no more than a share of one's norm, and a number; NaN is close to nothing."""
    return norm(found.double() - expected.double()) <= relative * norm(expected) + absolute


def norm(tensor: Tensor) -> float:
    """Returns the norm of a tensor, which may be sparse."""
    return float((tensor.coalesce().values() if tensor.is_sparse else tensor).detach().double().norm())


def state_of(model: nn.Module) -> dict[str, object]:
    """Returns what modules hold besides parameters and buffers: numbers, and tensors also inside of containers.

    The object itself stands for a tensor, so that none with the same id can take its place meanwhile.
    """
    found: dict[str, object] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            key = f"{path}.{name}".strip(".")
            if isinstance(value, (Tensor, int, float)) and name != "training":
                found[key] = value
            elif isinstance(value, (list, tuple, set, deque, dict)) and not name.startswith("_"):
                content = value.values() if isinstance(value, dict) else value
                found.update({f"{key}[{i}]": part for i, part in enumerate(content) if isinstance(part, Tensor)})
    return found


def changed_attribute(before: dict[str, object], after: dict[str, object]) -> str:
    """Returns which attribute holds another number or tensor than before, of what `state_of` gives; empty for none."""
    for key, value in after.items():
        was = before.get(key)
        if not (value is was or (not isinstance(value, Tensor) and not isinstance(was, Tensor) and value == was)):
            return key
    return ""
