"""Plain text for people: aligned tables, short numbers, durations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number with a few significant digits: "0.0884", "1.2e-07", "-" for None."""
    if value is None:
        return "-"
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return f"{value:.{digits}g}"


def count(value: int) -> str:
    """Returns a count in the unit that reads best: "512", "1.2 M", "6.74 B"."""
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e4, " k")):
        if value >= limit:
            return f"{value / (1e3 if unit == ' k' else limit):.3g}{unit}"
    return str(value)


def seconds(value: float) -> str:
    """Returns a duration: "4.2 ms", "0.8 s", "42 s", "3 min 20 s", "2 h 05 min"."""
    if value < 0.1:
        return f"{1000 * value:.2g} ms"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(value: float) -> str:
    """Returns a share as a percentage: "3.1 %", "<0.1 %"."""
    if 0 < abs(value) < 0.001:
        return "<0.1 %"
    return f"{100 * value:.2g} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"


def few(names: Sequence[str], most: int = 3) -> str:
    """Returns the first names of a list and how many more there are: "a, b, c and 4 more"."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Returns an aligned text table with a rule below its header.

    Args:
        header: one title per column.
        rows: cells as text, as many per row as there are titles.
        align: one character per column, "<" or ">"; columns beyond it are left-aligned.
    """
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    sides = align.ljust(len(header), "<")

    def line(cells: Sequence[str]) -> str:
        padded = (f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True))
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(header), rule, *map(line, rows)])


def kind(value: object) -> str:
    """Returns what an object is, with its article: "a deque", "an Adam"."""
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def numberless(name: str) -> str:
    """Returns a parameter's name with a star for each number: the same one for the same place in all layers."""
    return re.sub(r"\d+", "*", name)
