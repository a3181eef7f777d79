"""Tables as wide as the terminal: where one is too narrow, texts are shortened and the least of the columns go."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .. import text
from .notebook import in_notebook

NARROWEST = 40
"""Columns of a terminal below which nothing is shortened any further."""

NOTEBOOK = 100
"""Columns that a notebook shows of printed text without a line break, on the screens that most people have."""

_GAP = 2
_ENDS = " ,;:"
"""What follows a word."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        align: "<" or ">".
        rank: how much it matters: 0 stays on every screen, and of all others the highest goes first; one that is empty
            in every row goes in any case.
        least: to how many characters its texts may be shortened; None where they stay whole, as numbers have to.
        cut: which part of a text goes: its end, from the end of a word on, or its middle, as of dotted names.
    """

    title: str
    align: Literal["<", ">"] = "<"
    rank: int = 0
    least: int | None = None
    cut: Literal["end", "middle"] = "end"


def width() -> int | None:
    """Returns the columns of the screen that is printed on; None where it is none, but a file or another program."""
    if (given := os.environ.get("COLUMNS", "")).isdigit() and int(given):
        return max(NARROWEST, int(given))
    if in_notebook():
        return NOTEBOOK
    try:
        return max(NARROWEST, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError, AttributeError):  # no terminal, a closed one, or something that took stdout's place
        return None


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], most: int | None = None) -> str:
    """Returns an aligned text table with a rule below its header.

    Args:
        columns: from left to right.
        rows: cells as text, one per column.
        most: characters in a line; None for `width()`.
    """
    limit = width() if most is None else most
    kept = [place for place, one in enumerate(columns) if one.rank == 0 or any(row[place] for row in rows) or not rows]
    wanted = [max([len(one.title), *(len(row[place]) for row in rows)]) for place, one in enumerate(columns)]
    least = [_least(column, want) for column, want in zip(columns, wanted, strict=True)]
    while limit is not None and _total(least, kept) > limit and any(columns[place].rank for place in kept):
        kept.remove(max(kept, key=lambda place: (columns[place].rank, place)))
    widths = _widths(wanted, least, kept, limit)
    header = [columns[place].title for place in kept]
    cells = [[shortened(row[place], widths[place], columns[place].cut) for place in kept] for row in rows]
    return text.table(header, cells, "".join(columns[place].align for place in kept))


def _least(column: Column, wanted: int) -> int:
    return wanted if column.least is None else min(wanted, max(column.least, len(column.title)))


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[place] for place in kept) + _GAP * (len(kept) - 1)


def _widths(wanted: Sequence[int], least: Sequence[int], kept: Sequence[int], limit: int | None) -> list[int]:
    """Returns the width of each column: what a line leaves beyond the least is given to the most important first."""
    if limit is None:
        return list(wanted)
    found = list(least)
    spare = limit - _total(least, kept)
    for place in kept:
        more = min(max(0, spare), wanted[place] - least[place])
        found[place] += more
        spare -= more
    return found


def shortened(what: str, most: int, cut: Literal["end", "middle"] = "end") -> str:
    """Returns a text of at most so many characters, with "…" for what is left out.

    Args:
        what: the text.
        most: characters, 1 at least.
        cut: the end goes, from the end of a word on where one is near; or the middle.
    """
    if len(what) <= most:
        return what
    if cut == "middle":
        tail = (2 * (most - 1) + 2) // 3  # the end of a dotted name tells more than its beginning
        return f"{what[: most - 1 - tail]}…{what[len(what) - tail :]}"
    whole = what[: most - 1]
    if what[most - 1] not in _ENDS and " " in whole[most // 2 :]:
        whole = whole[: whole.rindex(" ")]
    return f"{whole.rstrip(_ENDS + '×=')}…"


def wrapped(what: str, indent: str = "", most: int | None = None) -> str:
    """Returns a text in lines that fit the screen, the lines after the first indented; words stay whole."""
    limit = width() if most is None else most
    if limit is None or len(what) <= limit:
        return what
    return "\n".join(
        textwrap.wrap(what, limit, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )
