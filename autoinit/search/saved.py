"""Everything that an answer holds, beside its plan in one file: written, and read back validated."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .. import jsonfile
from ..errors import PlanFileError
from ..graph import Graph

PLACE = "selection"
"""Where it stands in the provenance of the plan, which readers of plans pass over."""

_APART = ("plan", "trials", "graph")


def as_saved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an answer but its plan as JSON values."""
    graph = values["graph"]
    body = {name: _data(value) for name, value in values.items() if name not in _APART}
    body["trials"] = json.loads(values["trials"].to_json(orient="records", double_precision=15))
    body["graph"] = {field.name: _data(vars(graph)[field.name]) for field in dataclasses.fields(Graph) if field.init}
    found: dict[str, Any] = jsonfile.finite(body)
    return found


def _data(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_data(item) for item in value]
    return dict(value) if isinstance(value, dict) else jsonfile.to_data(value)


def read_saved(path: str | os.PathLike[str], kinds: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of an answer but its plan, as `as_saved` gave them.

    Args:
        path: of the plan's file.
        kinds: the type of each field.
        columns: of the trials → the type of each.

    Raises:
        PlanFileError: the file is missing or damaged, or holds a plan only.
    """
    what = f"File {os.fspath(path)!r}"
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise PlanFileError(f"{what} cannot be read: {problem}.") from None
    provenance = jsonfile.parse(content, PlanFileError, what).get("provenance")
    body = provenance.get(PLACE) if isinstance(provenance, dict) else None
    if not isinstance(body, dict):
        raise PlanFileError(
            f"{what} holds no whole selection; write one with selection.save(path, full=True). A plan alone is read "
            "with autoinit.Plan.load(path)."
        )
    found = {
        name: jsonfile.from_data(kind, body[name], PlanFileError, what)
        for name, kind in kinds.items()
        if name in body and name not in _APART
    }
    return {**found, "trials": _table(body.get("trials"), columns, what), "graph": _graph(body.get("graph"), what)}


def _table(rows: Any, columns: Mapping[str, str], what: str) -> pd.DataFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) and columns.keys() <= row.keys() for row in rows):
        raise PlanFileError(f"{what} is damaged: its trials are no list of rows with {', '.join(columns)}.")
    rows = [{name: math.nan if row[name] is None else row[name] for name in columns} for row in rows]
    try:
        return pd.DataFrame(rows, columns=list(columns)).astype(dict(columns))
    except (ValueError, TypeError) as problem:
        raise PlanFileError(f"{what} is damaged: its trials do not hold what they should ({problem}).") from None


def _graph(body: Any, what: str) -> Graph:
    if not isinstance(body, dict):
        raise PlanFileError(f"{what} is damaged: it lacks the architecture.")
    return jsonfile.from_data(Graph, body, PlanFileError, what)
