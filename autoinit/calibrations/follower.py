"""Follows what becomes of a product's output: marks on tensors that are handed on to what is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..task.batches import tensors
from ..task.interceptor import Interceptor

Mark = TypeVar("Mark")


class Follower(Interceptor, Generic[Mark]):
    """Hands marks on, from the arguments of each call to its result.

    Enter it inside `watch_products`, and report every product from there with `made`: what a product makes has the
    mark that is given there, and none of its arguments'. A backward inside the step is passed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._marks: Any = WeakTensorKeyDictionary()  # no tensor lives longer for being followed
        self._product: Tensor | None = None

    def made(self, output: Tensor, mark: Mark | None) -> None:
        """Says that a product has just made this output, and marks it."""
        self._product = output
        self._set(output, mark)

    def mark_of(self, value: Any) -> Mark | None:
        """Returns the mark of a tensor; None where it has none."""
        mark: Mark | None = self._marks.get(value) if isinstance(value, Tensor) else None
        return mark

    def hand_on(self, name: str, args: tuple[Any, ...], marks: list[Mark], result: Any) -> Mark | None:
        """Returns the mark of a result.

        Args:
            name: of the function, without underscores.
            args: of the call.
            marks: of its tensor arguments, at least one.
            result: a tensor.
        """
        raise NotImplementedError

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, marked; None for a backward, which is left out."""
        if func is Tensor.backward:
            return None
        given = list(tensors((args, kwargs)))
        marks = [mark for mark in map(self.mark_of, given) if mark is not None]
        self._product = None
        result = func(*args, **kwargs)
        name = str(func.__name__).strip("_")
        if name == "iter":
            result = list(result)  # the steps of a sequence
        for part in tensors(result):
            if part is not self._product and marks:
                self._set(part, self.hand_on(name, args, marks, part))
        return iter(result) if name == "iter" else result

    def _set(self, tensor: Tensor, mark: Mark | None) -> None:
        if mark is None:
            self._marks.pop(tensor, None)
        else:
            self._marks[tensor] = mark
