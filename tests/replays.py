"""A double of what records work on a device, which does the work again at each replay.

CUDA graphs need a device. On the CPU the arithmetic of work done again is the same to the bit, and all that surrounds a
graph is tested so: inputs, places in memory, the optimizer's state and rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_leaves

from autoinit.executors import capture as capturing
from autoinit.executors.recorded_stack import RecordedStack
from autoinit.judging.trials import Outcome


class Again:
    """Does recorded work again at each replay, into the tensors that it made at first.

    As a graph does, it uses weights and gradients where they lay when it was recorded, wherever they are now, and
    leaves the attributes of Python objects as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.recorded = self.replayed = 0
        self.recovers = True
        self._model = model

    def rehearse(self, work: Callable[[], object], *, strict: bool) -> None:
        work()

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        before = [(tensor, tensor.data, tensor.grad) for tensor in self._tensors(work)]
        made = work()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            with laid(before), torch.enable_grad():
                for old, new in zip(tree_leaves(made), tree_leaves(work()), strict=True):
                    if isinstance(old, Tensor):
                        old.detach().copy_(new.detach())

        return made, replay

    def recover(self) -> None:
        if not self.recovers:
            raise capturing.lost(RuntimeError("an illegal memory access was encountered"))

    def _tensors(self, work: Any) -> list[Tensor]:
        """Returns the model's tensors, and a stack's weights."""
        owner = getattr(work, "__self__", None)  # a scheduler puts a function in the place of an optimizer's `step`
        leaves = owner.home.leaves.values() if isinstance(owner, RecordedStack) else ()
        return [*self._model.parameters(), *self._model.buffers(), *leaves]


@contextmanager
def laid(places: list[tuple[Tensor, Tensor, Tensor | None]]) -> Iterator[None]:
    """Puts tensors and their gradients into some places, and back."""
    present = [(tensor, tensor.data, tensor.grad) for tensor, _, _ in places]
    put(places)
    try:
        yield
    finally:
        put(present)


def put(places: list[tuple[Tensor, Tensor, Tensor | None]]) -> None:
    for tensor, data, grad in places:
        tensor.data = data
        tensor.grad = grad


class Deaf(Again):
    """Replays nothing of some part: what a device does that has not recorded all of the work."""

    def __init__(self, model: nn.Module, part: int) -> None:
        super().__init__(model)
        self._part = part

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        made, replay = super().record(work)
        return made, (lambda: None) if self.recorded - 1 == self._part else replay


class Failing(Again):
    """Fails as a device does, in some part of the work."""

    def __init__(self, model: nn.Module, problem: str, strict: bool | None = None) -> None:
        super().__init__(model)
        self._problem, self._strict = problem, strict

    def rehearse(self, work: Callable[[], object], *, strict: bool) -> None:
        super().rehearse(work, strict=strict)
        if strict is self._strict:
            raise RuntimeError(self._problem)

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        raise RuntimeError(self._problem)


WAITED = "CUDA error: operation not permitted when stream is capturing"


def told(outcome: Outcome) -> tuple[Any, ...]:
    """Returns what of an outcome must be the same to the bit: all but seconds."""
    curve = outcome.curve
    seen = None if curve is None else (curve.losses, curve.held_back, curve.by_batch, curve.glance, curve.diverged_at)
    return repr(seen), None if curve is None else repr(curve.gradient_range), outcome.spent, outcome.reason


def late_momentum(parameters: Any) -> tuple[Optimizer, Any]:
    """A scheduler that changes the momentum from the seventh step on."""
    optimizer = SGD(parameters, lr=0.1, momentum=0.9)

    class Late(LambdaLR):
        def step(self, epoch: int | None = None) -> None:
            super().step()
            if self.last_epoch >= 6:
                self.optimizer.param_groups[0]["momentum"] = 0.5

    return optimizer, Late(optimizer, lambda step: 1.0)
