"""Of one episode: where the start is to move, by Reptile, FOMAML, MAML or ANIL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import USER_ERRORS, ArgumentError, AutoInitError, DataError, ModelError, described
from ..seeds import seed_of_use
from ..task.batches import describe
from ..task.machine import OUT_OF_MEMORY
from .inner import adapted, copies, leaves, minibatches, subtracted
from .objective import Objective, Tensors
from .settings import Settings
from .stream import Episode

_ONCE = ("double backward", "once_differentiable", "derivative for", "is not implemented", "differentiable twice")
"""What torch says where a gradient cannot be differentiated itself."""


@dataclass(frozen=True)
class Direction:
    """What one episode says of the start.

    Attributes:
        gradients: what Adam is given, by name; of Reptile the way from the adapted weights back to the start.
        before: loss of the query at the start.
        after: the same at the adapted weights.
        buffers: as the start's own first pass over the rows of the adaptation left them.
    """

    gradients: Tensors
    before: float
    after: float
    buffers: Tensors


@dataclass(frozen=True)
class Method:
    """A method with all that it needs.

    Attributes:
        settings: its name and rates.
        objective: the loss.
        inside: names of the weights that adapt inside of an episode.
    """

    settings: Settings
    objective: Objective
    inside: Sequence[str]

    def direction(self, weights: Tensors, buffers: Tensors, episode: Episode, number: int) -> Direction:
        """Returns where one episode wants the start to move; what it is given stays as it is.

        Args:
            weights: the start's trainable ones.
            buffers: the start's.
            episode: support and query.
            number: the episode's.

        Raises:
            DataError: the model or the loss cannot take the episode.
            ModelError: the model's gradients cannot be differentiated, as MAML and ANIL need.
            ArgumentError: the loss is no longer finite.
        """
        try:
            found = self._direction(weights, buffers, episode, number)
        except (AutoInitError, *OUT_OF_MEMORY):
            raise
        except USER_ERRORS as problem:
            raise self._told(problem, episode, number) from problem
        if not (math.isfinite(found.after) and all(bool(one.isfinite().all()) for one in found.gradients.values())):
            raise ArgumentError(
                f"at episode {number} the loss after adaptation is {found.after:.3g}, or a gradient is not finite. "
                f"Pass a smaller inner_lr than {self.settings.inner_lr:g}, or a smaller outer_lr than "
                f"{self.settings.outer_lr:g}."
            )
        return found

    def _direction(self, weights: Tensors, buffers: Tensors, episode: Episode, number: int) -> Direction:
        with torch.no_grad():
            before = self.objective.loss(weights, copies(buffers), episode[1])
        start = leaves(weights)
        if self.settings.method == "reptile":
            return self._by_reptile(start, copies(buffers), episode, number, float(before))
        if not self.settings.second_order:
            return self._by_gradient(start, copies(buffers), episode, float(before))
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention can be differentiated once only
            return self._by_gradient(start, copies(buffers), episode, float(before))

    def _by_gradient(self, start: Tensors, buffers: Tensors, episode: Episode, before: float) -> Direction:
        support, query = episode
        through, lr = self.settings.second_order, self.settings.inner_lr
        steps = [support] * self.settings.inner_steps
        end, first = adapted(self.objective, start, buffers, steps, names=self.inside, lr=lr, through=through)
        after = self.objective.loss(end, buffers, query)
        # Not autograd.grad, which passes over what refuses to be differentiated twice where no leaf lies behind it.
        after.backward()  # type: ignore[no-untyped-call]
        gradients = {name: _or_zero(leaf.grad, leaf) for name, leaf in start.items()}
        return Direction(gradients, before, float(after.detach()), first)

    def _by_reptile(self, start: Tensors, buffers: Tensors, episode: Episode, number: int, before: float) -> Direction:
        generator = torch.Generator().manual_seed(seed_of_use(self.settings.seed, f"minibatches {number}"))
        steps = list(minibatches(episode, self.settings.inner_steps, generator))
        lr = self.settings.inner_lr
        end, first = adapted(self.objective, start, buffers, steps, names=self.inside, lr=lr, through=False)
        with torch.no_grad():
            after = self.objective.loss(end, buffers, episode[1])
        return Direction(subtracted(start, end), before, float(after), first)

    def _told(self, problem: Exception, episode: Episode, number: int) -> Exception:
        said = described(problem)
        if self.settings.second_order and any(words in str(problem) for words in _ONCE):
            return ModelError(
                f"the gradients cannot be differentiated themselves, as {self.settings.method!r} needs: {said}. "
                "Pass method='fomaml' or 'reptile', which need no second derivatives."
            )
        return refused(problem, episode, f"episode {number}")


def refused(problem: Exception, episode: Episode, where: str) -> DataError:
    """Returns the error for an episode that the model or the loss cannot take."""
    return DataError(
        f"the model or the loss cannot take {where}, support {describe(episode[0])}, query {describe(episode[1])}: "
        f"{described(problem)}. Pass episodes of the shapes that the model takes, or loss=callable(output, target)."
    )


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()
