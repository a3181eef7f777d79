"""How the steps of a training are taken that its owner wrote, and what is seen of them from outside."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..task.batches import Batch
from ..task.task import Own
from .signals import norms

_PLAIN = (str, bytes, int, float, type, types.ModuleType, types.FunctionType)
_MOST_OBJECTS = 20_000
"""That are looked through for tensors; of a replay buffer in Python objects the first have to do."""


class OwnSteps:
    """Takes each step as a whole, in the place of `backward`; weights have moved when it returns.

    Attributes:
        scaled: never; what it scales is its own affair.
        whole: always.

    Args:
        own: the training.
        model: with the weights that it begins at.
        seed: of its batch orders and all else that is random.
    """

    scaled = False
    whole = True

    def __init__(self, own: Own, model: nn.Module, seed: int) -> None:
        model.train()
        self._steps = own.begun(model, seed)
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._seen: dict[int, Tensor] = {}
        self._watched: list[RemovableHandle] = []

    def backward(self, batch: Batch) -> Tensor | float:
        """Takes a step and returns its value."""
        try:
            value: Tensor | float = self._steps.take()
            return value
        finally:
            for hook in self._watched:
                hook.remove()
            self._watched = []

    def step(self, loss: Tensor | float) -> None:
        """Does nothing: the weights have moved."""

    def watch(self, parameters: Sequence[nn.Parameter]) -> None:
        """Has the next step's gradients looked at where they arrive: afterwards the training may have put them to zero.

        Args:
            parameters: whose gradients `norms` will be asked for.
        """
        self._seen = {}

        def look(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._seen[id(parameter)] = parameter.grad.detach().clone()

        trained: list[Any] = [one for one in parameters if one.requires_grad]
        self._watched = [one.register_post_accumulate_grad_hook(look) for one in trained]

    def norms(self, parameters: Sequence[nn.Parameter]) -> list[float]:
        """Returns the norms of the last step's gradients, of those parameters that got any.

        What the step has told itself counts, then what `backward` brought, then what lies in `.grad`. Empty where
        nothing tells.
        """
        told = self._steps.gradients
        if told is not None:
            named = (self._names.get(id(one), "") for one in parameters)
            return [told[name] for name in named if name in told]
        seen = [self._seen[id(one)] for one in parameters if id(one) in self._seen]
        return norms(seen or [one.grad for one in parameters if one.grad is not None])

    def kept(self) -> list[Tensor]:
        """Returns the tensors that the training keeps between two steps, its optimizer's among them."""
        frame = self._steps.frame
        return _tensors_of([] if frame is None else list(frame.values()))

    def close(self) -> None:
        """Ends the training, so that it closes what it has opened."""
        self._steps.close()


def _tensors_of(values: Sequence[Any]) -> list[Tensor]:
    """Returns the tensors among values and in what they are made of, each once."""
    waiting, known, found = deque(values), set[int](), list[Tensor]()
    while waiting and len(known) < _MOST_OBJECTS:
        value = waiting.popleft()
        if id(value) in known or isinstance(value, _PLAIN):
            continue
        known.add(id(value))
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, Mapping):
            waiting.extend((*value.keys(), *value.values()))
        elif isinstance(value, (list, tuple, set, frozenset, deque)):
            waiting.extend(value)
        elif "__dict__" in dir(value):
            waiting.extend(vars(value).values())
    return found
