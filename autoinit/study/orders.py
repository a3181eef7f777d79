"""What a coordinator asks of its workers, and what comes back; the same for every executor."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import described as told
from ..knowledge.lines import Line
from ..recipes.recipe import Recipe
from .jobs import Described, StudyJob
from .performer import Performer


@dataclass(frozen=True, slots=True)
class Describe:
    """Build a task, and say what it is."""

    task: str


@dataclass(frozen=True, slots=True)
class RunTrials:
    """Run trials of one task.

    Attributes:
        task: its name.
        jobs: of the trials.
        described: the task's, without its candidates: it goes to a worker with every order.
    """

    task: str
    jobs: tuple[StudyJob, ...]
    described: Described


@dataclass(frozen=True, slots=True)
class Layers:
    """Measure the signals of a task's layers with the weights of these recipes."""

    task: str
    recipes: tuple[Recipe, ...]


Order = Describe | RunTrials | Layers


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that has started, the first that is heard of it: before that it loaded torch, or waited for a place."""


@dataclass(frozen=True, slots=True)
class Raised:
    """An order that failed as a whole: the task cannot be built.

    Attributes:
        reason: the exception's kind and the first line of what it says.
        trace: the whole traceback.
    """

    reason: str
    trace: str


@dataclass(frozen=True, slots=True)
class Died:
    """A worker that is gone: killed, out of memory, crashed.

    Attributes:
        reason: in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An order that was carried out to its end."""


Reply = Ready | Line | Described | list[dict[str, Any]] | Raised | Died | Ended


class Workers(Protocol):
    """Carries out orders in other processes.

    Attributes:
        slots: names of the places at which an order can be carried out, one at a time each.
    """

    slots: tuple[int, ...]

    def give(self, slot: int, order: Order) -> None:
        """Has an order carried out at a slot that is free."""

    def replies(self, timeout: float) -> Iterator[tuple[int, Reply]]:
        """Yields what has come back, with its slot, waiting so many seconds at most for the first.

        Each order ends with `Ended`, `Raised` or `Died`, after which its slot is free. A worker that was started for
        one says `Ready` first.
        """

    def end(self, slot: int, reason: str) -> None:
        """Ends the worker of a slot that is not free; `Died` comes back from it, with this reason."""

    def close(self) -> None:
        """Ends all workers at once, whatever they are at."""


def carried_out(performer: Performer, order: Order) -> Iterator[Reply]:
    """Yields the replies to an order, in a worker."""
    try:
        if isinstance(order, Describe):
            yield performer.describe(order.task)
        elif isinstance(order, Layers):
            for recipe in order.recipes:
                yield performer.layers(order.task, recipe)
        else:
            yield from performer.run(order.jobs, order.described)
    except Exception as problem:
        performer.close()
        yield Raised(told(problem), traceback.format_exc())
    else:
        yield Ended()
