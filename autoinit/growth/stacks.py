"""Blocks of two networks of different depth, put side by side: which takes after which, and which is new."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]
Look = Mapping[str, Sequence[Shape]]
"""The shapes of a block's tensors, by their names without numbers."""

_NEAR = 1e-4
"""What being one place off costs, beside a shape that does not fit: it only decides between places that fit alike."""

_TORN = 1e-3
"""What each block costs that comes between a weight and its normalization."""

_EQUAL = 2e-2
"""What a length costs that is the same in a wider network: data and classes are, another stream may be by chance."""


@dataclass(frozen=True, slots=True)
class Partner:
    """The block of the source that a block of the model takes after.

    Attributes:
        place: its place among the source's blocks; None for a new block like none of them.
        new: the model's block has no counterpart; `place` is its nearest neighbour that has one.
    """

    place: int | None
    new: bool = False


def partners(model: Sequence[Look], source: Sequence[Look], ratios: Sequence[float]) -> list[Partner] | None:
    """Returns a partner for each block of a model, in order; None where the blocks do not fit together.

    A deeper model has all of the source's blocks, spread evenly, the first and the last in their places where their
    shapes allow it; a shallower one has the source's first blocks, as weight selection does (Xu et al. 2024,
    arXiv:2311.18823).

    Args:
        model: its blocks, from first to last.
        source: its blocks, from first to last.
        ratios: how many times wider the model may be; the one by which the blocks fit best is taken.
    """
    found = [_matched(model, source, ratio) for ratio in ratios]
    cost, partner = min(found, key=lambda one: one[0])
    return None if cost == math.inf else partner


def _matched(model: Sequence[Look], source: Sequence[Look], ratio: float) -> tuple[float, list[Partner]]:
    """Returns how badly the blocks fit, and the partner of each."""
    costs = [[_misfit(one, other, ratio) for other in source] for one in model]
    if len(model) < len(source):
        cost, places = _in_order(costs, 1.0, _seams(model))
        return cost, [Partner(place) for place in places]
    stretch = (len(model) - 1) / (len(source) - 1) if len(source) > 1 else 0.0
    cost, old = _in_order([list(column) for column in zip(*costs, strict=True)], stretch, _seams(source))
    if cost == math.inf:
        return cost, []
    worst = max(costs[place][number] for number, place in enumerate(old))
    place_of = {place: number for number, place in enumerate(old)}
    return cost, [
        Partner(place_of[i]) if i in place_of else Partner(_nearest(i, old, costs[i], worst), new=True)
        for i in range(len(model))
    ]


def _nearest(place: int, old: Sequence[int], costs: Sequence[float], worst: float) -> int | None:
    """Returns the source's block whose shapes fit best, and of those the nearest one, the earlier one of two."""
    best = min(range(len(old)), key=lambda number: (costs[number], abs(old[number] - place), number))
    return best if costs[best] <= worst else None


def _seams(blocks: Sequence[Look]) -> list[bool]:
    """Returns for each block whether it belongs to the one before it, as a normalization does: it has vectors only."""
    return [place > 0 and _is_flat(block) and not _is_flat(blocks[place - 1]) for place, block in enumerate(blocks)]


def _is_flat(block: Look) -> bool:
    return all(len(shape) < 2 for shapes in block.values() for shape in shapes)


def _in_order(costs: Sequence[Sequence[float]], stretch: float, seams: Sequence[bool]) -> tuple[float, list[int]]:
    """Returns the least cost, and for each row a column, columns ascending; near `stretch` times the row's number.

    `seams` are the rows that stay beside the one before them where they can.
    """
    width = len(costs[0]) if costs else 0
    best: list[list[tuple[float, int]]] = [[(0.0, -1)]]
    for number, row in enumerate(costs):
        line: list[tuple[float, int]] = []
        for place in range(width):
            before = (
                [(0.0, -1)]
                if number == 0
                else [(best[-1][last][0] + _TORN * seams[number] * (place - last - 1), last) for last in range(place)]
            )
            least, at = min(before, default=(math.inf, -1))
            line.append((least + row[place] + _NEAR * abs(place - stretch * number), at))
        best.append(line)
    least = min((cost for cost, _ in best[-1]), default=math.inf)
    if least == math.inf:
        return math.inf, []
    found = [min(range(width), key=lambda column: best[-1][column][0])]
    for line in reversed(best[2:]):
        found.append(line[found[-1]][1])
    return least, found[::-1]


def _misfit(model: Look, source: Look, ratio: float) -> float:
    """Returns how badly the shapes of two blocks fit: 0 where each length is `ratio` times as large."""
    if set(model) != set(source):
        return math.inf
    shapes = ((one, other) for name in model for one, other in zip(model[name], source[name], strict=False))
    return sum(_distance(one, other, ratio) for one, other in shapes)


def _distance(model: Shape, source: Shape, ratio: float) -> float:
    if len(model) != len(source):
        return math.inf
    return sum(_stretch(one, other, ratio) for one, other in zip(model, source, strict=True))


def _stretch(one: int, other: int, ratio: float) -> float:
    if one == ratio * other:
        return 0.0
    return _EQUAL if one == other else 1 + abs(math.log(max(1, one) / max(1, other)))
