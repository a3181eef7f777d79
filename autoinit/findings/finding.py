"""One thing that stands out: how much it matters, what was measured, and what would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: it will hardly train; warning: it trains worse than it could; note: good to know."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found, and its remedy.

    `autoinit.diagnose` makes them, in the `findings` of its answer; printed, one is a line with what was measured, and
    a line with what to do about it, often a call that can be pasted.

    Attributes:
        severity: how much it matters: "error" (the model will hardly train), "warning" (it trains worse than it could)
            or "note" (good to know).
        text: what was measured, with numbers.
        remedy: what would mend it.
    """

    severity: Severity
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}\n    → {self.remedy}"
