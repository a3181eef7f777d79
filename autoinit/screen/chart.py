"""Small charts as inline SVG: lines over steps or layers, and intervals by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..text import number

WIDTH, HEIGHT = 480, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 22, 34
_ROW, _NAMES = 20, 190
_COLOURS = ("#8a8a8a", "#2a7de1", "#d9662b", "#3a9a5b", "#9558b2")
"""Of the series in their order, the first in grey: what others are compared with. They are told apart on light and on
dark pages, and by who does not see red and green."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart.

    Attributes:
        label: in the legend.
        points: (x, y); what is not finite, and what is not positive where the axis is logarithmic, is left out.
    """

    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A row of a chart of intervals: a value and its two ends."""

    label: str
    value: float
    low: float
    high: float


def lines(series: Sequence[Series], x: str, y: str, *, logarithmic: bool = False) -> str:
    """Returns a line chart; empty where no series has two points.

    Args:
        series: the lines, what others are compared with first.
        x: title of the horizontal axis.
        y: of the vertical one.
        logarithmic: whether the vertical axis is.
    """

    def height(value: float) -> float:
        return math.log10(value) if logarithmic else value

    shown = [(one.label, [(at, height(up)) for at, up in one.points if _fits(up, logarithmic)]) for one in series]
    shown = [(label, points) for label, points in shown if len(points) > 1]
    if not shown:
        return ""
    across = _Axis.of([at for _, points in shown for at, _ in points], _LEFT, WIDTH - _RIGHT)
    up = _Axis.of([value for _, points in shown for _, value in points], HEIGHT - _BOTTOM, _TOP)
    parts = [_frame(across, up, x, y, logarithmic)]
    legend = []
    for place, (label, points) in enumerate(shown):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(f"{across.at(at):.1f},{up.at(value):.1f}" for at, value in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        legend.append(f'<span style="color:{colour}">●</span> {escape(label)}')
    title = f"{y} over {x}: {', '.join(label for label, _ in shown)}"
    return f'{_svg(parts, HEIGHT, title)}<div style="font-size:85%">{" &nbsp; ".join(legend)}</div>'


def intervals(rows: Sequence[Interval], x: str, *, middle: float = 0.0) -> str:
    """Returns a chart of intervals, a row each; empty where there is none.

    Args:
        rows: from top to bottom.
        x: title of the horizontal axis.
        middle: the value of what all are compared with; a line stands there.
    """
    rows = [row for row in rows if all(map(math.isfinite, (row.value, row.low, row.high)))]
    if not rows:
        return ""
    ends = [middle, *(end for row in rows for end in (row.low, row.high))]
    across = _Axis.of(ends, _NAMES, WIDTH - _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    parts = [_line(across.at(middle), _TOP, across.at(middle), bottom, "currentColor", ".5")]
    for place, row in enumerate(rows):
        y = _TOP + _ROW * (place + 0.5)
        colour = _COLOURS[1 if row.high < middle or row.low > middle else 0]
        parts.append(_line(across.at(row.low), y, across.at(row.high), y, colour, "1"))
        parts.append(f'<circle cx="{across.at(row.value):.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        parts.append(_text(_NAMES - 8, y + 4, row.label[:30], "end"))
    parts += [_text(across.at(tick), bottom + 14, number(tick, 2), "middle") for tick in across.ticks()]
    parts.append(_text(WIDTH - _RIGHT, bottom + 28, x, "end"))
    return _svg(parts, bottom + 34, x)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    @staticmethod
    def of(values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        if high <= low:
            low, high = low - 0.5, high + 0.5
        return _Axis(low, high, start, end)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        return self.low, (self.low + self.high) / 2, self.high


def _fits(value: float, logarithmic: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not logarithmic)


def _frame(across: _Axis, up: _Axis, x: str, y: str, logarithmic: bool) -> str:
    bottom = HEIGHT - _BOTTOM + 4
    parts = [_line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "currentColor", ".5")]
    for tick in up.ticks():
        value = 10**tick if logarithmic else tick
        parts.append(_line(_LEFT, up.at(tick), WIDTH - _RIGHT, up.at(tick), "currentColor", ".12"))
        parts.append(_text(_LEFT - 6, up.at(tick) + 4, number(value, 2), "end"))
    parts += [_text(across.at(across.low), HEIGHT - 16, number(across.low, 3), "middle")]
    parts += [_text(across.at(across.high), HEIGHT - 16, number(across.high, 4), "end")]
    parts += [_text((_LEFT + WIDTH) / 2, HEIGHT - 4, x, "middle"), _text(4, 12, y, "start")]
    return "".join(parts)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, opacity: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-opacity="{opacity}" stroke-width="1.5"/>'


def _text(x: float, y: float, what: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="11" fill="currentColor">{escape(what)}</text>'


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    style = 'style="max-width:100%;height:auto;display:block;margin:.4em 0"'
    return f'<svg {box} {style} role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
