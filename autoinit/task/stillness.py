"""A step computes a loss and moves nothing: optimizers that it would step itself are stopped before they do."""

from __future__ import annotations

import contextlib
import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..errors import StepError
from .snapshot import Snapshot

_REMEDY = (
    "A step only computes the loss: return the loss tensor, leave optimizer.step() out, and pass the optimizer as "
    "optimizer=. It may call backward itself, to accumulate or clip gradients."
)


@contextlib.contextmanager
def stilled(model: nn.Module) -> Iterator[None]:
    """Refuses, inside the block, steps of optimizers that hold the model's weights, or outlast the block.

    The first are stopped before anything moves. The second hold weights of something else, a critic's, which would go
    on from one candidate to the next: what they have moved is put back. An optimizer that is made inside and gone
    afterwards, as in an inner loop on copies, does no harm.

    Raises:
        StepError: an optimizer was stepped.
    """
    watch = _Watch(model)
    handle = register_optimizer_step_pre_hook(watch)
    try:
        yield
    finally:
        handle.remove()
        lasting = watch.put_back() if watch.foreign else []
    if watch.refusal is not None:  # by a step that goes on after an exception
        raise watch.refusal
    if lasting:
        raise StepError(
            f"the step calls {lasting[0]}, on weights that do not belong to the model: they would go on from one "
            "candidate to the next, so nothing could be compared. Leave that call out: for the choice of weights the "
            "step computes the loss of this model beside the others as they are."
        )


class _Watch:
    """Is called before each step of any optimizer.

    Attributes:
        refusal: of the first step on the model's weights.
        foreign: optimizers of other weights, as they were before their first step here.
    """

    def __init__(self, model: nn.Module) -> None:
        self.refusal: StepError | None = None
        self.foreign: list[_Foreign] = []
        self._model = model
        self._thread = threading.get_ident()

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        own = {id(parameter) for parameter in self._model.parameters()}
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        count = sum(id(parameter) in own for parameter in held)
        if count:
            name = type(optimizer).__name__
            self.refusal = StepError(
                f"the step calls {name}.step() on {count} of the model's parameters, which would train it, and the "
                f"optimizer, behind the comparison. {_REMEDY}"
            )
            raise self.refusal
        if all(one.optimizer() is not optimizer for one in self.foreign):
            self.foreign.append(_Foreign(optimizer, held))

    def put_back(self) -> list[str]:
        """Puts back what optimizers that are still there have moved; returns what was called."""
        if any(one.optimizer() is not None for one in self.foreign):
            gc.collect()  # a scheduler and its optimizer refer to each other
        return [one.name for one in self.foreign if one.put_back()]


class _Foreign:
    """An optimizer of other weights, and all that it moves.

    Attributes:
        optimizer: which may be gone.
        name: of the call.
    """

    def __init__(self, optimizer: Optimizer, held: list[Tensor]) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.name = f"{type(optimizer).__name__}.step()"
        self._weights = [(weight, weight.detach().clone()) for weight in held]
        self._state = {weight: copy.deepcopy(state) for weight, state in optimizer.state.items()}

    def put_back(self) -> bool:
        """Whether the optimizer is still there; then its state and its weights are put back."""
        optimizer = self.optimizer()
        if optimizer is None:
            return False
        with torch.no_grad():
            for weight, value in self._weights:
                weight.copy_(value)
        optimizer.state.clear()
        optimizer.state.update(self._state)
        return True


def check_still(model: nn.Module, snapshot: Snapshot, loss: Tensor, again: Callable[[], object]) -> None:
    """Raises StepError where a step has moved weights that it trains, without an optimizer of torch's.

    What a step does to weights without gradient (a moving average of others) is its own affair. So is what only keeps
    weights within bounds (a clamp, a norm at the most): done again, it changes nothing.

    Args:
        model: as the step has left it.
        snapshot: of the model before the step.
        loss: that the step returned.
        again: does the step again on the same batch.
    """
    moved = _reached(model, snapshot.moved(), loss)
    if not moved:
        return
    before = [parameter.detach().clone() for parameter in moved]
    again()
    if not all(torch.equal(parameter, value) for parameter, value in zip(moved, before, strict=True)):
        raise StepError(
            f"the step changes {len(moved)} of the model's parameters itself, which would train it behind the "
            f"comparison. {_REMEDY}"
        )


def _reached(model: nn.Module, moved: list[nn.Parameter], loss: Tensor) -> list[nn.Parameter]:
    """Returns those of some parameters that get a gradient; all where nothing tells."""
    moved = [parameter for parameter in moved if parameter.requires_grad]
    if any(parameter.grad is not None for parameter in model.parameters()):
        return [parameter for parameter in moved if parameter.grad is not None]
    if not moved or not loss.requires_grad:
        return moved
    try:
        gradients = torch.autograd.grad(loss, moved, retain_graph=True, allow_unused=True)
    except RuntimeError:  # they were changed after they had been used
        return moved
    return [parameter for parameter, gradient in zip(moved, gradients, strict=True) if gradient is not None]
