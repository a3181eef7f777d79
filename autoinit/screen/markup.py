"""A result as a small page below a notebook's cell: a sentence, a chart, and folded tables.

It brings no script and no style sheet, takes the colours of the page around it, light or dark, and scrolls sideways
where the screen is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .columns import Column

_TABLE = "border-collapse:collapse;font-size:90%"
_CELL = "padding:2px 10px 2px 0;white-space:nowrap"
_SHOWN = 200
"""Rows of a table that are shown at most: a page in a notebook is saved with it."""


def page(sentence: str, *parts: str) -> str:
    """Returns a result's HTML.

    Args:
        sentence: what it says, as plain text.
        *parts: HTML of what follows; empty ones are left out.
    """
    body = "".join(part for part in parts if part)
    return f'<div style="max-width:60em;line-height:1.45"><div><b>{escape(sentence)}</b></div>{body}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns short facts, a line each: what it is, and the value, as plain text."""
    lines = (f'<div><span style="opacity:.65">{escape(name)}</span> {escape(value)}</div>' for name, value in pairs)
    return f'<div style="margin:.3em 0">{"".join(lines)}</div>' if pairs else ""


def code(lines: str) -> str:
    """Returns code to copy."""
    return f'<pre style="margin:.4em 0;overflow-x:auto">{escape(lines)}</pre>'


def folded(title: str, *parts: str, opened: bool = False) -> str:
    """Returns HTML that is behind its title until that is clicked."""
    state = " open" if opened else ""
    head = f'<summary style="cursor:pointer">{escape(title)}</summary>'
    return f'<details{state} style="margin:.4em 0">{head}{"".join(parts)}</details>'


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of plain texts that scrolls by itself where it is too wide.

    Args:
        columns: from left to right; all of them are shown.
        rows: cells, one per column.
    """
    sides = ["right" if column.align == ">" else "left" for column in columns]

    def line(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, sides, strict=True)
        return "".join(f'<{tag} style="{_CELL};text-align:{side}">{escape(cell)}</{tag}>' for cell, side in pairs)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows[:_SHOWN])
    rest = f"<div>… and {len(rows) - _SHOWN} more</div>" if len(rows) > _SHOWN else ""
    head = f"<thead><tr>{line([column.title for column in columns], 'th')}</tr></thead>"
    return f'<div style="overflow-x:auto"><table style="{_TABLE}">{head}<tbody>{body}</tbody></table>{rest}</div>'
