"""Several sets of weights of one model, stacked, that are trained and evaluated together by `torch.vmap`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..task.batches import Batch
from ..task.evaluation import evaluating
from ..task.task import Task
from .dropout import SameDropout
from .elementwise import StackedOptimizer
from .plain_attention import plain_attention


class _LossOf(nn.Module):
    """A task's loss as a module around its model, so that weights can be put in for one call."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, batch: Batch) -> Tensor:
        return self._task.loss(batch)


class Stack:
    """K sets of weights of one model.

    Trainable parameters and the buffers that training changes are stacked to [K, …]; frozen parameters and other
    buffers are the model's own, for all. Autograd runs around `torch.vmap` and not inside it: the sum of K losses
    gives each candidate its own gradient, `.grad` of the stacked weights is filled as usual, and BatchNorm writes its
    running statistics into the stacked buffers.

    Attributes:
        size: candidates so far.
        leaves: the stacked weights, by name; those of the candidates alone once it is started.
        buffers: likewise.
        optimizer: moves them, once it is started.

    Args:
        task: of the model.
        capacity: the most candidates that will be added.
        moving: names of the buffers that training changes, from `moving_buffers`.
    """

    optimizer: StackedOptimizer

    def __init__(self, task: Task, capacity: int, moving: Collection[str] = ()) -> None:
        self.size = 0
        self._task = task
        self._module = _LossOf(task)
        trained = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        buffers = {name: buffer for name, buffer in self._module.named_buffers() if name in moving}
        self.leaves = {name: p.detach().new_empty((capacity, *p.shape)) for name, p in trained.items()}
        self.buffers = {name: buffer.new_empty((capacity, *buffer.shape)) for name, buffer in buffers.items()}

    @torch.no_grad()
    def add(self) -> None:
        """Copies the model's present weights and buffers to the next place."""
        present = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        for name, values in (*self.leaves.items(), *self.buffers.items()):
            values[self.size].copy_(present[name])
        self.size += 1

    def start(self, factors: Sequence[float]) -> None:
        """Makes the optimizer, once all candidates are added.

        Args:
            factors: of each candidate, on every learning rate.
        """
        self.leaves = {name: values[: self.size].requires_grad_() for name, values in self.leaves.items()}
        self.buffers = {name: values[: self.size] for name, values in self.buffers.items()}
        self.optimizer = self.moved_by(factors)

    def moved_by(self, factors: Sequence[float]) -> StackedOptimizer:
        """Returns a fresh optimizer of the stacked weights.

        Args:
            factors: of each candidate, on every learning rate.
        """
        own = dict(self._module.named_parameters())
        stacked: dict[Tensor, Tensor] = {own[name]: leaf for name, leaf in self.leaves.items()}
        return StackedOptimizer(self._task, stacked, factors)

    def backward(self, batch: Batch) -> Tensor:
        """Sets the gradients of every candidate's loss on a batch and returns the losses, [K], not waited for."""
        for leaf in self.leaves.values():
            leaf.grad = None
        losses = self._losses(batch)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def step(self) -> None:
        """Moves every candidate by its gradients, and steps the scheduler."""
        self.optimizer.step()

    def gradient_norms(self) -> list[list[float]]:
        """Returns for every candidate the norms of its gradients, of weights with two axes or more.

        Where no such weight is trained, they are those of all that is.
        """
        trained = list(self.leaves.values())
        matrices = [leaf for leaf in trained if leaf.dim() > 2] or trained
        norms = [
            torch.linalg.vector_norm(leaf.grad.flatten(1) if leaf.dim() > 1 else leaf.grad[:, None], dim=1).double()
            for leaf in matrices
            if leaf.grad is not None
        ]
        if not norms:
            return [[] for _ in range(self.size)]
        found: list[list[float]] = torch.stack([norm.to(norms[0].device) for norm in norms], dim=1).tolist()
        return found

    def gradients(self, row: int) -> dict[str, Tensor]:
        """Returns one candidate's gradients, by the names of the model's parameters."""
        named = ((name.removeprefix("model."), leaf.grad) for name, leaf in self.leaves.items())
        return {name: grad[row] for name, grad in named if grad is not None}

    def values(self, row: int) -> dict[str, Tensor]:
        """Returns copies of one candidate's weights and buffers, by the names that they have in the model."""
        named = {**self.leaves, **self.buffers}
        return {name.removeprefix("model."): values[row].detach().clone() for name, values in named.items()}

    def evaluate(self, batches: Sequence[Batch]) -> list[list[float]]:
        """Returns for every candidate the loss of each batch, without training on them."""
        kept = {name: values.clone() for name, values in self.buffers.items()} if self._task.manner.training else {}
        with evaluating(self._task.model, self._task.manner):
            by_batch = [_floats(self._losses(batch)) for batch in batches]
        self._put(kept)
        return [list(losses) for losses in zip(*by_batch, strict=True)] if by_batch else [[]] * self.size

    def keep(self, places: Sequence[int]) -> None:
        """Drops all candidates but those at some places, with their buffers and the optimizer's state."""
        device = next(iter(self.leaves.values())).device
        rows = torch.tensor(places, dtype=torch.long, device=device)
        kept = {name: leaf.detach()[rows].requires_grad_() for name, leaf in self.leaves.items()}
        self.optimizer.keep(rows, {leaf: kept[name] for name, leaf in self.leaves.items()})
        self.leaves = kept
        self.buffers = {name: values[rows] for name, values in self.buffers.items()}
        self.size = len(places)

    def _losses(self, batch: Batch) -> Tensor:
        """Returns the loss of every candidate, [K]; updates the stacked buffers."""

        def loss(leaves: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            values = {**leaves, **buffers}
            found: Tensor = functional_call(self._module, values, (batch,))
            # A module that replaces a buffer, instead of writing to it, leaves the new one in `values`.
            return found, {name: values[name] for name in buffers}

        # One dropout mask for all: that of a training by itself with the same seed.
        with plain_attention(), SameDropout():
            losses, buffers = torch.vmap(loss, randomness="same")(self.leaves, self.buffers)
        self._put({name: values.detach().contiguous() for name, values in buffers.items()})
        return losses

    def _put(self, buffers: dict[str, Tensor]) -> None:
        """Takes the buffers that a pass has left: those that it began with, written to, or others."""
        self.buffers.update(buffers)


def _floats(losses: Tensor) -> list[float]:
    found: list[float] = losses.detach().tolist()
    return found


def moving_buffers(task: Task) -> frozenset[str]:
    """Returns the names of the buffers that training changes, seen on one forward pass, which changes them.

    Only these need a copy for each candidate; a mask or a table of positions does not.
    """
    module, gradients = _LossOf(task), task.differentiates
    before = {name: (buffer, buffer._version, buffer.clone()) for name, buffer in module.named_buffers()}
    if not before:
        return frozenset()
    task.model.train()
    with torch.set_grad_enabled(gradients):
        task.loss(task.train[0])
    moved = set()
    for name, buffer in module.named_buffers():
        was, version, values = before.get(name, (None, 0, None))
        still = buffer is was and buffer._version == version and values is not None and torch.equal(buffer, values)
        moved.update([] if still else [name])
    return frozenset(moved)
