"""The catalogue as a data frame that a notebook shows as a page, and not as a wall of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from ..screen import markup
from ..screen.columns import Column, table, wrapped

_SHOWN = [Column(name) for name in ("name", "title", "purpose", "prefer", "cost")]
_PRINTED = [Column("name"), Column("title", rank=2, least=12), Column("purpose", rank=1, least=30)]
_USE = 'Give a name to apply_, select or resolve: autoinit.apply_(model, "lsuv", data)'
_KINDS = {"scheme": "Schemes: a formula for every weight matrix", "recipe": "Recipes: rules by role, depth and width"}
_KINDS["inheritance"] = "Inheritance: what is new beside trained weights"
_MEASURED = "Calibrations: drawn, then measured on batches and corrected"


class Listing(pd.DataFrame):
    """A row for each initialization that has a name; whatever is taken from it is a plain DataFrame."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        return f"<Listing: {len(self)} initializations by name, a data frame; print it to read them>"

    def __str__(self) -> str:
        tables = [f"{title}\n\n{table(_PRINTED, cells)}" for title, cells in self._by_kind(_PRINTED)]
        return "\n\n".join([*tables, wrapped(_USE)])

    def _repr_html_(self) -> str:
        parts = [markup.folded(title, markup.table(_SHOWN, cells)) for title, cells in self._by_kind(_SHOWN)]
        return markup.page(f"{len(self)} initializations by name", markup.facts([("", _USE)]), *parts)

    def _by_kind(self, columns: Sequence[Column]) -> Iterator[tuple[str, list[list[str]]]]:
        """Yields the heading of each kind with some columns of its rows."""
        for kind in dict.fromkeys(self["kind"]):
            rows = self[self["kind"] == kind].to_dict("records")
            yield (
                f"{_KINDS.get(kind, _MEASURED)} ({len(rows)})",
                [[str(row[column.title]) for column in columns] for row in rows],
            )
