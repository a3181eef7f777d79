"""What the containers of a module hold, kept and put back whatever subclasses of Python's own they are."""

from __future__ import annotations

import collections
import itertools
import operator
from typing import Any

_KINDS = (collections.OrderedDict, dict, list, set, collections.deque)
"""Python's mutable containers; an OrderedDict before the dict that it is too."""


class Contents:
    """What one dict, list, set or deque held when this was made, and the attributes of one of a subclass.

    It is read and written by the methods of Python's own type: those of a subclass may refuse to (a config that is
    frozen once it is made), or do more than that. What still holds the same is not written to.
    """

    __slots__ = ("_attributes", "_container", "_items", "_kind")

    def __init__(self, container: Any) -> None:
        self._container = container
        self._kind: Any = next(kind for kind in _KINDS if isinstance(container, kind))
        self._items = self._now()
        self._attributes = _attributes(container)

    @staticmethod
    def can_hold(value: Any) -> bool:
        """Whether a value is a container whose content can be kept."""
        return isinstance(value, _KINDS)

    @property
    def values(self) -> list[Any]:
        """What was held: of a dict its values."""
        return self._items[1::2] if issubclass(self._kind, dict) else self._items

    def restore(self) -> None:
        """Puts back what was held, in the same object."""
        held, kind = self._container, self._kind
        if not _same(self._now(), self._items):
            kind.clear(held)
            if issubclass(kind, dict):
                for key, value in zip(self._items[::2], self._items[1::2], strict=True):
                    kind.__setitem__(held, key, value)
            elif issubclass(kind, set):
                kind.update(held, self._items)
            else:
                kind.extend(held, self._items)
        if self._attributes is not None and not _same(_flat(vars(held).items()), _flat(self._attributes.items())):
            vars(held).clear()
            vars(held).update(self._attributes)

    def _now(self) -> list[Any]:
        if not self._kind.__len__(self._container):  # most hold hooks, of which there are none
            return []
        if issubclass(self._kind, dict):
            return _flat(self._kind.items(self._container))
        return list(self._kind.__iter__(self._container))


def _attributes(container: Any) -> dict[str, Any] | None:
    """Returns a copy of a container's attributes; None without any, or where they are its entries once more."""
    if type(container) in _KINDS:
        return None
    try:
        found = vars(container)
    except TypeError:  # a subclass with slots, or written in C
        return None
    return None if found is container else dict(found)


def _flat(entries: Any) -> list[Any]:
    """Returns keys and values in turn."""
    return list(itertools.chain.from_iterable(entries))


def _same(now: list[Any], before: list[Any]) -> bool:
    """Whether these are the very same objects in the same order; equal ones may be others."""
    return len(now) == len(before) and all(map(operator.is_, now, before))
