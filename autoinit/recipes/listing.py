"""The catalogue as a data frame that a notebook shows as a page, and not as a wall of text."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ..screen import markup
from ..screen.columns import Column

_SHOWN = [Column(name) for name in ("name", "title", "purpose", "prefer", "cost")]
_KINDS = {"scheme": "Schemes: a formula for every weight matrix", "recipe": "Recipes: rules by role, depth and width"}
_MEASURED = "Calibrations: drawn, then measured on batches and corrected"


class Listing(pd.DataFrame):
    """A row for each initialization that has a name; whatever is taken from it is a plain DataFrame."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        parts = []
        for kind in dict.fromkeys(self["kind"]):
            rows = self[self["kind"] == kind]
            cells = [[str(row[column.title]) for column in _SHOWN] for row in rows.to_dict("records")]
            parts.append(markup.folded(f"{_KINDS.get(kind, _MEASURED)} ({len(rows)})", markup.table(_SHOWN, cells)))
        facts = markup.facts([("", 'Give a name to apply_, select or resolve: autoinit.apply_(model, "lsuv", data)')])
        return markup.page(f"{len(self)} initializations by name", facts, *parts)
