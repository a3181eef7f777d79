"""Fills as text: a table in which layers that are alike share a row, and how much of a model they cover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from .. import text
from ..screen.columns import Column, table
from .fill import Fill

COLUMNS = (
    Column("parameter", least=20, cut="middle"),
    Column("shape", rank=4),
    Column("role", rank=2),
    Column("draw", rank=1),
    Column("std or value", ">"),
    Column("why", rank=3, least=20),
)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def fill_table(fills: Sequence[Fill]) -> str:
    """Returns a table of fills; those that differ in numbers within name and reason only are one row."""
    return table(COLUMNS, fill_rows(fills))


def fill_rows(fills: Sequence[Fill]) -> list[tuple[str, ...]]:
    """Returns the rows of that table."""
    return [_row(list(same)) for _, same in groupby(_by_pattern(fills), key=_pattern)]


def _by_pattern(fills: Sequence[Fill]) -> list[Fill]:
    """Returns the fills with equal patterns beside each other, patterns in order of appearance."""
    order: dict[tuple[str, ...], int] = {}
    for fill in fills:
        order.setdefault(_pattern(fill), len(order))
    return sorted(fills, key=lambda fill: order[_pattern(fill)])


def _pattern(fill: Fill) -> tuple[str, ...]:
    why = _NUMBER.sub("*", fill.reason)
    return text.numberless(fill.name), str(fill.shape), fill.role, fill.distribution, why


def _row(group: list[Fill]) -> tuple[str, ...]:
    first = group[0]
    stds = sorted({value for fill in group for value in _sizes(fill)})
    if len(stds) > 1 and text.number(stds[0]) != text.number(stds[-1]):
        spread = f"{text.number(stds[0])}…{text.number(stds[-1])}"
    else:
        spread = text.number(stds[0]) if stds else "-"
    draw = "rescale" if first.distribution == "keep" and not first.untouched else first.distribution
    return _joint_name(group), "×".join(map(str, first.shape)) or "1", first.role, draw, spread, _joint_reason(group)


def _sizes(fill: Fill) -> tuple[float, ...]:
    """Returns what tells the size of a fill: the values of a constant, the std of a draw, nothing of what is kept."""
    if fill.distribution == "constant":
        return tuple(value * fill.factor for value in fill.values)
    return () if fill.std is None else (fill.std * abs(fill.factor),)


def _joint_name(group: list[Fill]) -> str:
    """Returns the name that some fills share, a star for each number in it that differs."""
    if len(group) == 1:
        return group[0].name
    parts = [re.split(r"(\d+)", fill.name) for fill in group]
    joint = (same[0] if len(set(same)) == 1 else "*" for same in zip(*parts, strict=True))
    return f"{''.join(joint)} ({len(group)})"


def _joint_reason(group: list[Fill]) -> str:
    """Returns the reason that some fills share, each number in it that differs as a range."""
    parts = [_NUMBER.split(fill.reason) for fill in group]
    return "".join(map(_joint_part, zip(*parts, strict=True)))


def _joint_part(same: tuple[str, ...]) -> str:
    if len(set(same)) == 1:
        return same[0]
    low, high = (choose(same, key=float) for choose in (min, max))
    return f"{low}…{high}"


def coverage(fills: Sequence[Fill]) -> str:
    """Returns what is drawn, rescaled and kept, in one sentence."""
    total = sum(fill.size for fill in fills)
    drawn = [fill for fill in fills if fill.distribution != "keep"]
    rescaled = [fill for fill in fills if fill.distribution == "keep" and not fill.untouched]
    kept = len(fills) - len(drawn) - len(rescaled)
    share = sum(fill.size for fill in (*drawn, *rescaled)) / max(1, total)
    return (
        f"Sets {len(drawn)} and rescales {len(rescaled)} of {len(fills)} parameters "
        f"({text.percent(share)} of {text.count(total)} values); keeps {kept}."
    )
