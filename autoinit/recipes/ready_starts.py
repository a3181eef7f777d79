"""Starts that are objects of their own, with weights in them: learned from many tasks, or a ticket with its masks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import RecipeError
from .about import About

_NAME = re.compile(r"(learned|ticket)-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRow:
    """What is known of one kind.

    Attributes:
        verb: that makes one.
        name: of the kind, with which the names of all such starts begin.
        about: its formula, its source, what it is for.
    """

    verb: str
    name: str
    about: About


_ROWS = (
    StartRow(
        verb="meta_learn",
        name="learned",
        about=About(
            title="learned start",
            purpose="many small tasks of one kind, another of which is to be learned in a few steps",
            formula="θ that is best after k steps of descent, over episodes: MAML, ANIL, FOMAML, Reptile",
            source="Finn et al. 2017, arXiv:1703.03400; Nichol et al. 2018, arXiv:1803.02999",
            prefer="few rows of a task, and many tasks like it to learn from beforehand",
            cost="one pass over the weights; meta_learn has paid for the episodes",
        ),
    ),
    StartRow(
        verb="ticket",
        name="ticket",
        about=About(
            title="lottery ticket",
            purpose="networks that are to be sparse from the start",
            formula="W' = m ⊙ W, and m is kept: a mask of 0 and 1 for each weight",
            source="Frankle & Carbin 2019, arXiv:1803.03635; Lee et al. 2019, arXiv:1810.02340",
            prefer="as many steps with a part of the weights; only hardware that skips zeros is faster",
            cost="one pass over the weights; ticket has paid for the masks",
        ),
    ),
)

START_ROWS: dict[str, StartRow] = {row.name: row for row in _ROWS}
"""Every kind by its name."""


def start_kind(name: str) -> str:
    """Returns the kind of a start, "learned" or "ticket", by its name; empty for any other text."""
    found = _NAME.fullmatch(name)
    return found[1] if found else ""


def has_ticket(names: Iterable[str]) -> bool:
    """Whether one of some starts is a ticket, whose masks hold in its own trainings alone."""
    return any(start_kind(name) == "ticket" for name in names)


def not_at_hand(name: str) -> RecipeError:
    """Returns what is raised where a recipe names a start that nobody has passed."""
    return RecipeError(
        f"The start {name!r} is not at hand: a recipe has its name alone. Pass the LearnedStart or the Ticket itself, "
        "or its file, to select(recipes=[…]); or call its apply_(model)."
    )
