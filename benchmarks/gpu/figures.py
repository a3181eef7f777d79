"""What is measured, beside what is wanted: rows of a result file, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoinit.text import number

from ..common.jobs import Row

Value = float | bool | str


@dataclass(frozen=True)
class Wanted:
    """What a figure has to reach: at most, or at least, or that it is so.

    Attributes:
        at_most: the largest value that will do; None where there is none.
        at_least: the smallest.
    """

    at_most: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        if self.at_most is not None:
            return f"≤ {number(self.at_most)}"
        return "yes" if self.at_least is None else f"≥ {number(self.at_least)}"

    def met_by(self, value: Value) -> bool:
        """Returns whether a value is what is wanted."""
        if isinstance(value, (bool, str)):
            return value is True
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= value <= high


YES = Wanted()
"""What is wanted of figures that are true or false."""


def figure(
    section: str, case: str, name: str, value: Value, *, unit: str = "", wanted: Wanted | None = None, note: str = ""
) -> Row:
    """Returns the row of one measurement.

    Args:
        section: of the benchmark.
        case: what it was measured on.
        name: what was measured.
        value: of it.
        unit: that the value is in.
        wanted: what it has to reach; None where nothing is asked.
        note: what else there is to know.
    """
    row: Row = {"kind": "figure", "section": section, "case": case, "figure": name, "value": value, "unit": unit}
    return row | {
        "wanted": "" if wanted is None else str(wanted),
        "met": None if wanted is None else wanted.met_by(value),
        "note": note,
    }


HEADER = ("measured on", "what", "value", "wanted", "met", "note")


def cells(row: Row) -> list[str]:
    """Returns a figure, or what went wrong in its place, as cells of the table."""
    if row["kind"] == "problem":
        return [row["case"], "**failed**", "–", "", "", row["problem"]]
    if row["kind"] == "left out":
        return [row["case"], "**left out**", "–", "", "", "no time was left"]
    met = {None: "", True: "yes", False: "**no**"}[row["met"]]
    value = f"{in_words(row['value'])} {row['unit']}".strip()
    return [row["case"], row["figure"], value, row["wanted"], met, row["note"]]


def in_words(value: Value) -> str:
    """Returns a value as the table has it: large ones whole, others with three digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else number(value)


def table(rows: Sequence[Row]) -> str:
    """Returns figures as a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *map(cells, rows)]
    tidy = ([" ".join(cell.replace("|", "/").split()) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in tidy)


def page(rows: Sequence[Row]) -> str:
    """Returns what a run has found as a page: the machine, a table for each section, what is met and what failed."""
    ends = [row for row in rows if row["kind"] == "section"]
    return "\n\n".join(["# On a device", *(section_page(rows, end) for end in ends), summary(rows)]) + "\n"


def section_page(rows: Sequence[Row], end: Row) -> str:
    """Returns what a section has found.

    Args:
        rows: of the run.
        end: the closing row of the section.
    """
    own = [row for row in rows if row.get("section") == end["section"]]
    head = f"## {end['section']}: {end['status']}, {end['seconds']:.0f} s"
    machine = [machine_line(row) for row in own if row["kind"] == "machine"]
    found = [row for row in own if row["kind"] in SHOWN]
    return "\n\n".join([head, *machine, *([table(found)] if found else [])])


SHOWN = ("figure", "problem", "left out")
"""Kinds of rows that the tables have."""


def machine_line(row: Row) -> str:
    """Returns what the figures were measured on and with, in a line."""
    small = " (smoke: small models and few steps, whose figures mean nothing)" if row["smoke"] else ""
    made = f"torch {row['torch']}, Python {row['python']}, commit {row['commit'] or 'unknown'}, {row['date']}"
    return f"{row['device_name']}; {made}{small}."


def summary(rows: Sequence[Row]) -> str:
    """Returns how many of the wanted figures are reached, and what could not be measured."""
    broken = troubles(rows)
    unmeasured = f" **Not measured:** {'; '.join(broken)}." if broken else ""
    if any(row["kind"] == "machine" and row["smoke"] for row in rows):
        return f"{sum(row['kind'] == 'figure' for row in rows)} figures were taken, which mean nothing.{unmeasured}"
    asked = [row for row in rows if row["kind"] == "figure" and row["met"] is not None]
    missed = [f"{row['case']}: {row['figure']}" for row in asked if not row["met"]]
    said = f"{len(asked) - len(missed)} of {len(asked)} wanted figures are reached."
    if missed:
        said += " Not: " + "; ".join(missed) + "."
    return said + unmeasured


def troubles(rows: Sequence[Row]) -> list[str]:
    """Returns what failed, was ended or was left out, in words; empty where everything was measured."""
    lost = [row for row in rows if row["kind"] in ("problem", "left out") and row["section"] != "machine"]
    ended = [f"{row['section']} {row['status']}" for row in rows if row["kind"] == "section" and row["broken"]]
    return [f"{row['section']}, {row['case']}" for row in lost] + ended
