"""Which unit of a trained layer each unit of a larger or smaller one takes after, axis by axis of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factor:
    """What an axis counts, or one digit of it: heads, units of a head, positions of a flattened picture.

    Two factors that are equal are mapped in the same way wherever they stand, so that what is added, multiplied or
    contracted later fits together.

    Attributes:
        before: how many the source has.
        after: how many the model has.
        of: what is counted; it keeps heads apart from a stream that happens to be as wide.
    """

    before: int
    after: int
    of: str = "units"


Choice = Callable[[Factor], Tensor]
"""Returns for each of `factor.after` units the one of `factor.before` that it takes after; -1 for none."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an axis: an index whose digits are its factors, the last one running fastest.

    Attributes:
        factors: from the slowest to the fastest.
        contracted: the last factor is summed over in a product with another activation, as queries are with keys.
    """

    factors: tuple[Factor, ...]
    contracted: bool = False

    @property
    def before(self) -> int:
        """Its length in the source."""
        return math.prod(factor.before for factor in self.factors)

    @property
    def after(self) -> int:
        """Its length in the model."""
        return math.prod(factor.after for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor.

    Attributes:
        segments: one after the other: queries, keys and values of a fused weight, the gates of an LSTM.
        kind: "out" units are computed, "in" units are summed over, "rows" are looked up by number, and "fixed" is what
            has one length in both.
    """

    segments: tuple[Segment, ...]
    kind: Literal["in", "out", "rows", "fixed"] = "out"

    @property
    def before(self) -> int:
        """Its length in the source."""
        return sum(segment.before for segment in self.segments)

    @property
    def after(self) -> int:
        """Its length in the model."""
        return sum(segment.after for segment in self.segments)


def plain(before: int, after: int, kind: Literal["in", "out", "rows", "fixed"] = "out") -> Axis:
    """Returns an axis that counts one thing."""
    return Axis((Segment((Factor(before, after),)),), kind)


def factors(axes: Sequence[Axis]) -> Iterator[Factor]:
    """Yields what the axes of a tensor count, but for rows of tables, of which both sides may have any number."""
    for axis in axes:
        if axis.kind != "rows":
            for segment in axis.segments:
                yield from segment.factors


def index(axis: Axis, choose: Choice) -> Tensor:
    """Returns for each unit of an axis the one of the source that it takes after, -1 for none; shape (after,)."""
    if axis.kind == "rows":
        return _first_rows(axis.before, axis.after)
    parts, start = [], 0
    for segment in axis.segments:
        part = torch.zeros(1, dtype=torch.long)
        for factor in segment.factors:
            digit = choose(factor)
            joined = part[:, None] * factor.before + digit[None, :]
            part = torch.where((part[:, None] < 0) | (digit[None, :] < 0), -1, joined).flatten()
        parts.append(torch.where(part < 0, -1, part + start))
        start += segment.before
    return torch.cat(parts)


def _first_rows(before: int, after: int) -> Tensor:
    rows = torch.arange(after)
    return torch.where(rows < before, rows, -1)


def copies(units: Tensor, before: int) -> Tensor:
    """Returns how many units take after the same one, for each unit; 1 where it takes after none.

    Args:
        units: from `index`.
        before: the length of the axis in the source.
    """
    counts = torch.bincount(units[units >= 0], minlength=before)
    return torch.where(units < 0, 1, counts[units.clamp(min=0)])


def contraction(axis: Axis, choose: Choice) -> Tensor:
    """Returns the factor of each unit of an axis that keeps products of queries and keys as they were.

    A product of heads of size d is divided by √d. With m copies of a unit it is m-fold, so that its factor is
    √(after / before) / m; 1 for what is not contracted.
    """
    parts = []
    for segment in axis.segments:
        last = segment.factors[-1]
        scale = torch.ones(segment.after, dtype=torch.float64)
        if segment.contracted and last.before != last.after:
            times = math.sqrt(last.after / last.before) / copies(choose(last), last.before)
            scale = times.repeat(segment.after // last.after)
        parts.append(scale)
    return torch.cat(parts)
