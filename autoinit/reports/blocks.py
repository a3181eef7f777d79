"""What a page is built of: sections with facts, figures, tables and foldable texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Drawing:
    """One state of a figure, in plotly's own JSON.

    Attributes:
        data: the traces.
        layout: axes, sizes and titles.
        label: in the drop-down of its figure.
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure.

    Attributes:
        id: in the page.
        title: above it.
        note: how to read it.
        drawings: what a drop-down chooses from; without one where there is a single drawing.
        chooses: what the drop-down is called.
        shown: which drawing the page opens on.
    """

    id: str
    title: str
    note: str
    drawings: list[Drawing]
    chooses: str = "Task"
    shown: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        header: a title per column.
        rows: cells.
        left: how many columns from the left hold words and are aligned to that side.
        caption: above it.
        fold: what is shown of it until it is clicked; empty shows it at once.
        page: rows that are shown at a time; 0 shows all.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    caption: str = ""
    fold: str = ""
    page: int = 0


@dataclass(frozen=True, slots=True)
class Folded:
    """A text that opens on a click.

    Attributes:
        title: always shown.
        text: shown as it is, in a fixed-width font.
        printed: whether it is printed open, and not only where it was opened.
    """

    title: str
    text: str
    printed: bool = True


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page; its parts are shown in the order of the attributes.

    Attributes:
        title: of the section.
        texts: paragraphs.
        code: lines to copy.
        facts: names and values.
        figures: drawn by plotly.
        tables: of text.
        folded: long texts.
    """

    title: str
    texts: Sequence[str] = ()
    code: str = ""
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Folded] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes:
        title: of the page.
        lead: what it comes to, in a sentence or two.
        sections: in order.
    """

    title: str
    lead: str
    sections: Sequence[Section] = field(default_factory=list)
