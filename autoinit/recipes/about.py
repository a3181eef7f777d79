"""What is told of a method: the one description that schemes, calibrations and entries of the catalogue share."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN_COST = "one pass over the weights"
"""What most methods cost; the table in a terminal leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a method is, for people, and what it asks of a network.

    Attributes:
        title: as people say it.
        purpose: the networks that it was made for.
        formula: with the symbols of the source.
        source: author, year, arXiv number.
        prefer: when to take it rather than another.
        cost: of applying it, in words.
        left_out: the part of the paper that is no weight, and so is not done.
        needs: keys of `autoinit.recipes.needs.NEEDS`: an architecture without them is refused.
    """

    title: str
    purpose: str
    formula: str
    source: str
    prefer: str
    cost: str = PLAIN_COST
    left_out: str = ""
    needs: tuple[str, ...] = ()
