"""A stream of episodes: each checked, on the model's device, and the same ones in every run of one seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import USER_ERRORS, AutoInitError, DataError, described
from ..seeds import seed_of_use
from ..task.assign import digest
from ..task.batches import describe, map_tensors, row_counts, tensors
from ..task.casting import Numbers
from ..task.data import check_finite
from ..task.snapshot import seed_generators

Side: TypeAlias = tuple[Any, Tensor]
"""Inputs and targets of the rows of one side of an episode."""
Episode: TypeAlias = tuple[Side, Side]
"""The rows to adapt to (the support) and those to be judged on afterwards (the query)."""

_FORM = "An episode is ((inputs, targets), (inputs, targets)): the rows to adapt to, and those to be judged on."
_ANEW = "Pass a list, or a callable that returns a new iterator, either of which can begin anew."


class Stream:
    """The episodes of some tasks, one after the other.

    Before each is fetched, the global generators are seeded by its number, so that a sampler which draws from them
    gives the same episodes whatever was done in between. Whoever makes a stream puts them back.

    Attributes:
        taken: how many episodes it has given.
    """

    def __init__(self, tasks: Any, model: nn.Module, seed: int, *, again: bool = True) -> None:
        """Makes a stream that has given nothing yet.

        Args:
            tasks: an iterable of episodes, or a callable that returns one.
            model: whose device and dtype the episodes get.
            seed: of what a sampler draws from global generators.
            again: whether what ends is begun anew.
        """
        self.taken = 0
        self._tasks, self._seed, self._again = tasks, seed, again
        self._device = next(model.parameters()).device
        self._numbers = Numbers.of(model)
        self._last: Episode | None = None
        self._next: Episode | None = None
        self._iterator = self._begun()

    def __iter__(self) -> Iterator[Episode]:
        return self

    def __next__(self) -> Episode:
        episode = self.peek()
        self._next = None
        self.taken += 1
        self._last = episode
        return episode

    def peek(self) -> Episode:
        """Returns the next episode, which stays the next one."""
        if self._next is None:
            seed_generators(seed_of_use(self._seed, f"fetch {self.taken}"), self._device)
            self._next = self._checked(self._fetched(), f"episode {self.taken}")
        return self._next

    def skip(self, count: int) -> str:
        """Returns the fingerprint of the last of so many episodes that are passed over; empty for none."""
        for _ in range(count):
            next(self)
        return self.last

    @property
    def last(self) -> str:
        """The fingerprint of the episode that was given last; empty before the first."""
        return "" if self._last is None else "".join(map(digest, tensors(self._last)))[-64:]

    def _begun(self) -> Iterator[Any]:
        made = self._tasks
        if callable(made) and not isinstance(made, Iterable):
            try:
                made = made()
            except USER_ERRORS as problem:
                raise DataError(f"tasks() failed: {described(problem)}.") from problem
        if not isinstance(made, Iterable) or isinstance(made, (str, bytes, Mapping, Tensor, np.ndarray)):
            raise DataError(
                f"tasks gives a {type(made).__name__}. Allowed: an iterable of episodes, such as "
                f"autoinit.episodes(inputs, labels), or a callable that returns one. {_FORM}"
            )
        return iter(made)

    def _fetched(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            if not self._again and self.taken:
                raise
        except AutoInitError:
            raise
        except USER_ERRORS as problem:
            raise DataError(f"fetching episode {self.taken} of tasks failed: {described(problem)}.") from problem
        return self._first_anew()

    def _first_anew(self) -> Any:
        """Returns the first episode of tasks that have ended and begin anew."""
        if not self.taken:
            raise DataError(f"tasks holds no episode. {_FORM}")
        self._iterator = self._begun()
        try:
            return next(self._iterator)
        except StopIteration:
            raise DataError(f"tasks ended after {self.taken} episodes, and more are needed. {_ANEW}") from None

    def _checked(self, found: Any, where: str) -> Episode:
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise DataError(f"{where} is {describe(found)}. {_FORM}")
        support, query = (self._side(side, f"the {name} of {where}") for side, name in zip(found, _NAMES, strict=True))
        return support, query

    def _side(self, side: Any, where: str) -> Side:
        if side is None or (isinstance(side, (tuple, list)) and not len(side)):
            raise DataError(f"{where} is missing: it has no rows. {_FORM}")
        if not isinstance(side, (tuple, list)) or len(side) != 2:
            raise DataError(f"{where} is {describe(side)}. {_FORM}")
        inputs, targets = (_tensorized(part, where) for part in side)
        if not isinstance(targets, Tensor):
            raise DataError(f"the targets in {where} are {describe(targets)}. Pass one tensor or array of them.")
        counts = row_counts((inputs, targets))
        if not tensors(inputs) or 0 in counts or len(counts) != 1:
            raise DataError(
                f"{where} is {describe((inputs, targets))}. Inputs and targets need as many rows as each other, and "
                "one at least."
            )
        check_finite([(inputs, targets)], where)
        moved = map_tensors(lambda tensor: self._numbers.cast_one(tensor, target=False).to(self._device), inputs)
        return moved, self._numbers.cast_one(targets, target=True).to(self._device)


_NAMES = ("support", "query")


def _tensorized(value: Any, where: str) -> Any:
    """Returns inputs or targets with tensors in the place of arrays and of lists of numbers."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _tensorized(part, where) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and any(isinstance(part, (Tensor, np.ndarray, Mapping)) for part in value):
        return tuple(_tensorized(part, where) for part in value)
    try:
        return torch.as_tensor(np.array(value))
    except (TypeError, ValueError, RuntimeError) as problem:
        raise DataError(
            f"{where} holds a {type(value).__name__} that is no array of numbers: {described(problem)}. Pass tensors "
            "or arrays."
        ) from problem
