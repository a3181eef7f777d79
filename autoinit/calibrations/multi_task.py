"""Heads of such scales that each sends an equal gradient into the trunk that they share.

The idea is that of Chen, Badrinarayanan, Lee & Rabinovich 2018, "GradNorm: Gradient normalization for adaptive loss
balancing in deep multitask networks", arXiv:1711.02257, which learns weights of the losses. Here initial weights do it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..plans.fill import Adjustment
from ..recipes.agents import heads_of
from ..task.interceptor import Interceptor
from ..task.products import watch_products
from ..task.snapshot import seed_generators
from ..tracing.tape import leaves
from .fetching import fetched
from .standardize import reason_to_skip
from .subject import Subject
from .units import scale

TOLERANCE = 0.02
"""By how much a gradient may differ from the mean, relative: then no two differ by five percent."""
PASSES = 12
"""Most passes; two where gradients are proportional to their heads, four as a rule."""
LARGEST = 1000.0
"""A head is multiplied by no more, and by no less than the inverse: its outputs would be noise, or nothing."""
FLATTEST, STEEPEST = 0.3, 3.0
"""Slopes that log gradient over log scale is believed to have: 1 where the gradient at the output stays, 2 under
squared errors that the outputs themselves make."""


def multi_task(subject: Subject) -> dict[str, Adjustment]:
    """Returns the factor of each head at which heads on one trunk send equal gradients into it.

    Measured is ‖∂L/∂h_i‖ on one batch in training mode, where h_i is what head i reads and the gradient that which
    comes back through this head alone, over all that it reads in the pass as one vector. The aim is the geometric mean
    of the heads on one trunk as they were drawn, so that the product of all stays. A factor on the weight multiplies
    the gradient at once, and a second time as far as it moves the output and with it the gradient there; so each is
    looked for in several passes, until all are within 2 % of the aim. Biases stay.

    Heads share a trunk where what they read depends on a parameter in common; those of separate trunks, as of an actor
    and a critic that share nothing, are left. So are heads whose gradient is zero (of zeros) or not finite, those that
    must stay, and those that are tied to a table. Where no factor within the bound reaches the aim, the best is taken.

    A pass is one forward pass, and a backward pass that ends at the inputs of the heads: the trunk is not
    differentiated, but its activations are held. At least one pass is taken, and `PASSES` at most.

    Args:
        subject: the drawn model and its data; its heads are changed likewise.
    """
    layers = {layer.name: layer for layer in heads_of(subject.graph) if not reason_to_skip(layer)}
    if len(layers) < 2:
        return {}
    first = _measure(subject, set(layers), look_behind=True)
    heads = [head for trunk in _trunks(first) for head in _aimed(trunk)]
    for _ in range(PASSES - 1):
        if all(head.is_there for head in heads):
            break
        asked = {head.name: head.next() for head in heads}
        taken = scale(subject.model, [(layers[name], torch.tensor([by], device="cpu")) for name, by in asked.items()])
        heads = [head for head in heads if taken[head.name]]
        found = _measure(subject, {head.name for head in heads})
        for head in heads:
            head.see(found[head.name].norm if head.name in found else 0.0, asked[head.name])
    return {head.name: Adjustment(head.best) for head in heads if head.best != 1.0}


@dataclass
class _Found:
    """What one head has sent back in a pass, and the parameters that what it reads depends on, by id."""

    norm: float
    behind: set[int]


@dataclass
class _Head:
    """One head on its way to its aim; scales and gradients are logarithms.

    Attributes:
        name: of its weight.
        aim: log of the gradient's norm that is wanted.
        seen: (log of the factor, log of the norm) of each pass.
    """

    name: str
    aim: float
    seen: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_there(self) -> bool:
        """Whether the last pass found it at its aim, or it can come no nearer."""
        at, norm = self.seen[-1]
        bound = math.log(LARGEST)
        stuck = len(self.seen) > 1 and abs(at) >= bound and (self.aim - norm) * at > 0
        return abs(norm - self.aim) <= math.log1p(TOLERANCE) or stuck

    @property
    def best(self) -> float:
        """The factor at which the gradient was nearest to the aim."""
        return math.exp(min(self.seen, key=lambda one: abs(one[1] - self.aim))[0])

    def next(self) -> float:
        """Returns the factor from where the head is now to where its gradient is expected at the aim."""
        at, norm = self.seen[-1]
        if self.is_there:
            return 1.0
        wanted = at + (self.aim - norm) / self._slope()
        low = max((one for one, value in self.seen if value < self.aim), default=-math.inf)
        high = min((one for one, value in self.seen if value > self.aim), default=math.inf)
        if low < high < math.inf and low > -math.inf and not low < wanted < high:
            wanted = (low + high) / 2
        bound = math.log(LARGEST)
        return math.exp(min(bound, max(-bound, wanted)) - at)

    def see(self, norm: float, by: float) -> None:
        """Notes the norm of the gradient after the head has been multiplied once more."""
        self.seen.append((self.seen[-1][0] + math.log(by), math.log(norm) if norm > 0 else -math.inf))

    def _slope(self) -> float:
        """Returns d log gradient / d log scale, as the last two scales tell; 1 before."""
        moved = [one for one in self.seen[:-1] if one[0] != self.seen[-1][0] and math.isfinite(one[1])]
        if not moved or not math.isfinite(self.seen[-1][1]):
            return 1.0
        (before, old), (at, norm) = moved[-1], self.seen[-1]
        return min(STEEPEST, max(FLATTEST, (norm - old) / (at - before)))


def _trunks(found: Mapping[str, _Found]) -> Iterator[dict[str, _Found]]:
    """Yields the heads that share a trunk, two or more at a time, without those that send nothing back."""
    rest = {name: one for name, one in found.items() if one.norm > 0 and math.isfinite(one.norm)}
    while rest:
        name = next(iter(rest))
        trunk = {name: rest.pop(name)}
        behind = set(trunk[name].behind)
        while joined := [other for other, one in rest.items() if behind & one.behind]:
            for other in joined:
                trunk[other] = rest.pop(other)
                behind |= trunk[other].behind
        if len(trunk) > 1:
            yield trunk


def _aimed(trunk: Mapping[str, _Found]) -> list[_Head]:
    logs = {name: math.log(one.norm) for name, one in trunk.items()}
    aim = sum(logs.values()) / len(logs)
    return [_Head(name, aim, [(0.0, value)]) for name, value in logs.items()]


class _Losses(Interceptor):
    """Collects what a step calls `backward` on, which is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns; None for a backward."""
        if func is Tensor.backward:
            self.found.append(args[0])
            return None
        return func(*args, **kwargs)


def _measure(subject: Subject, names: set[str], *, look_behind: bool = False) -> dict[str, _Found]:
    """Returns what heads send back in one pass, of those that it meets and whose inputs have a gradient.

    Args:
        subject: the model and its data.
        names: of the heads.
        look_behind: whether to look which parameters their inputs depend on.
    """
    read: dict[str, list[Tensor]] = {}
    behind: dict[str, set[int]] = {}

    def on_input(name: str, value: Tensor) -> Tensor:
        if name not in names or not value.requires_grad:
            return value
        if look_behind:
            behind.setdefault(name, set()).update(leaves(value.grad_fn))
        own = value.view_as(value)  # a tensor of this head alone, so that its gradient is too
        read.setdefault(name, []).append(own)
        return own

    subject.spend(forwards=1)
    losses: Any = _Losses()
    seed_generators(subject.seed, subject.task.device)
    if not subject.model.training:
        subject.model.train()
    with torch.enable_grad(), losses, watch_products(subject.model, lambda name, output: None, on_input):
        last = subject.task.loss(subject.task.train[0])
    ends = [loss for loss in (losses.found or [last]) if loss.requires_grad]
    inputs = [value for values in read.values() for value in values]
    if not (ends and inputs):
        return {}
    gradients = torch.autograd.grad([loss.sum() for loss in ends], inputs, allow_unused=True)
    sent: dict[str, list[Tensor]] = {name: [] for name in read}
    owners = [name for name, values in read.items() for _ in values]
    for name, gradient in zip(owners, gradients, strict=True):
        sent[name] += [] if gradient is None else [gradient]
    squares = [_square(values) for values in sent.values()]
    norms = (math.sqrt(square.item()) for square in fetched(squares))
    return {name: _Found(norm, behind.get(name, set())) for name, norm in zip(sent, norms, strict=True)}


def _square(gradients: list[Tensor]) -> Tensor:
    """Returns the sum of the squares of all entries."""
    known = [gradient.abs().double().square().sum() for gradient in gradients]
    return torch.stack(known).sum() if known else torch.zeros((), dtype=torch.float64)
