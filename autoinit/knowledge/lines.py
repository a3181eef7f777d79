"""Record lines: what is kept of each finished trial of a study, one JSON object a line, whatever kept it before."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..jsonfile import finite
from ..judging.score import Curve, Score
from ..version import __version__, to_install

SCHEMA = 2
"""Of a record line; a line of a later one is skipped, and said to be. Lines of schema 1 lack `recipe_features`."""
DIGITS = 6
"""Significant digits that are kept of a measured number: more than any of it is exact to."""

Line = dict[str, Any]

IDENTITY = ("fingerprint", "recipe", "stage", "seed", "lr_step", "steps")
"""What makes two lines the same trial, whoever ran it."""

FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "id": str,
    "study": str,
    "task": str,
    "family": str,
    "dataset": str,
    "fingerprint": str,
    "features": dict,
    "recipe": str,
    "fields": dict,
    "recipe_features": dict,
    "stage": str,
    "seed": int,
    "lr_step": int,
    "lr": (int, float, type(None)),
    "steps": int,
    "curve": (dict, type(None)),
    "signals": (dict, type(None)),
    "score": (dict, type(None)),
    "state": str,
    "reason": str,
    "attempts": int,
    "spent": (int, float),
    "seconds": (int, float),
    "device": str,
    "threads": int,
    "autoinit": str,
    "torch": str,
    "finished": str,
}
"""Every field of a line, and its type."""


ENDINGS = (".jsonl", ".csv", ".parquet")
"""Of files that records are written to."""


def identity(line: Mapping[str, Any]) -> str:
    """Returns the id of a trial: of what was run, not of when or by whom."""
    told = json.dumps([line[name] for name in IDENTITY], ensure_ascii=False)
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def stamped(line: Line, *, torch: str) -> Line:
    """Returns a line with all that is not of its trial: schema, versions, the time, and its id.

    Args:
        line: what was run and measured.
        torch: its version.
    """
    found: Line = {
        "schema": SCHEMA,
        "id": "",
        **line,
        "attempts": 1,
        "autoinit": __version__,
        "torch": torch,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return {**found, "id": identity(found)}


def rounded(value: Any) -> Any:
    """Returns the same tree with its numbers at `DIGITS` significant digits, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def curve_data(curve: Curve) -> dict[str, Any]:
    """Returns what a line keeps of a curve."""
    return {
        "losses": rounded(curve.losses),
        "held_back": rounded(curve.held_back),
        "diverged_at": curve.diverged_at,
    }


def signals_data(curve: Curve) -> dict[str, Any] | None:
    """Returns what was seen of the gradients: at the first step, and their range at the range's step."""
    if curve.glance is None:
        return None
    seen = curve.glance
    found = {"loss": seen.loss, "gradient_norm": seen.gradient_norm, "gradient_range": seen.gradient_range}
    return {name: rounded(value) for name, value in {**found, "range_at": curve.gradient_range}.items()}


def score_data(score: Score) -> dict[str, Any]:
    """Returns what a line keeps of a score."""
    parts = {"total": score.total, "training": score.training, "held_back": score.held_back}
    return {name: rounded(value) for name, value in {**parts, "stability": score.stability}.items()}


@dataclass
class Read:
    """Lines of a file, or of several.

    Attributes:
        lines: in their order, each trial once.
        skipped: what was not read, in words, with the file and the line's number.
        repeated: lines whose trial was there already.
    """

    lines: list[Line] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    repeated: int = 0


def read_lines(*paths: str | Path) -> Read:
    """Returns the lines of one or more files: damaged ones are named and skipped, repeated trials counted once.

    Args:
        *paths: JSON lines, as `write_lines` writes them, or Parquet files (".parquet").

    Raises:
        ArgumentError: a file cannot be read.
    """
    found, seen = Read(), set[str]()
    for path in map(Path, paths):
        if path.suffix == ".csv":
            raise ArgumentError(
                f"{path} is a table for other programs, which is not read back. Give .jsonl or .parquet."
            )
        for place, line in _parquet(path) if path.suffix == ".parquet" else _json_lines(path):
            if isinstance(line, dict) and line.get("schema") == 1:
                line = {**line, "schema": SCHEMA, "recipe_features": {}}
            if problem := line if isinstance(line, str) else _problem(line):
                found.skipped.append(f"{path}, line {place}: {problem}")
            elif isinstance(line, dict) and line["id"] in seen:
                found.repeated += 1
            elif isinstance(line, dict):
                seen.add(line["id"])
                found.lines.append(line)
    return found


def write_lines(path: str | Path, lines: Iterable[Line]) -> int:
    """Appends lines to a file and returns how many; trials that it holds already are not written again.

    A torn last line, of a program that was killed while it wrote, is cut off first.

    Args:
        path: of JSON lines (".jsonl"); made where there is none. ".parquet" and ".csv" write the whole table anew.
        lines: to write.

    Raises:
        ArgumentError: the file has another ending, or cannot be read or written.
    """
    target = Path(path)
    if target.suffix not in ENDINGS:
        raise ArgumentError(f"Records are not written to {target.name!r}. Allowed endings: {', '.join(ENDINGS)}.")
    try:
        if target.suffix == ".parquet":
            return _write_parquet(target, lines)
        if target.suffix == ".csv":
            return _write_csv(target, lines)
        held = {line["id"] for line in read_lines(target).lines} if target.exists() else set()
        _trim(target)
        count = 0
        with target.open("a", encoding="utf-8") as file:
            for line in lines:
                if line["id"] not in held:
                    held.add(line["id"])
                    file.write(json.dumps(finite(line), ensure_ascii=False, allow_nan=False) + "\n")
                    count += 1
        return count
    except OSError as problem:
        raise ArgumentError(
            f"{target} cannot be written ({problem.strerror or problem}). Give a path in a folder that exists."
        ) from None


def _trim(path: Path) -> None:
    """Cuts off what follows the last newline."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _json_lines(path: Path) -> Iterator[tuple[int, Line | str]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise ArgumentError(f"{path} cannot be read ({problem.strerror or problem}). Give a file of records.") from None
    for place, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        try:
            line = json.loads(row)
        except json.JSONDecodeError as problem:
            yield place, f"not JSON at column {problem.colno}; cut off or damaged"
            continue
        except (ValueError, RecursionError) as problem:  # a number of thousands of digits, lists in lists in lists
            yield place, f"damaged: {problem}"
            continue
        yield place, line if isinstance(line, dict) else f"a JSON {type(line).__name__} in the place of an object"


def _problem(line: Line) -> str:
    """Returns why a line cannot be used, in words; empty where it can."""
    if isinstance(line.get("schema"), int) and line["schema"] > SCHEMA:
        return f"schema {line['schema']}, of a later version; this one reads up to {SCHEMA}"
    for name, kind in FIELDS.items():
        if name not in line:
            return f"no field {name!r}"
        if not isinstance(line[name], kind):
            return f"field {name!r} is {line[name]!r:.40}"
    if line["id"] != identity(line):
        return "its id does not fit its trial; it was changed"
    return next((f"field {place!r} is {value!r:.40}" for place, value in _unmeasured(line)), "")


def _unmeasured(line: Line) -> Iterator[tuple[str, Any]]:
    """Yields what should be a number, or a list of (steps, number) pairs, and is neither that nor missing."""
    numbers = {"score": ("total", "training", "held_back"), "signals": ("loss", "gradient_norm", "gradient_range")}
    for name, parts in numbers.items():
        found = line[name] or {}
        yield from ((f"{name}.{part}", found[part]) for part in parts if not _is_number(found.get(part)))
    rungs = (line["curve"] or {}).get("held_back", [])
    if not isinstance(rungs, list) or not all(
        isinstance(rung, list) and len(rung) == 2 and isinstance(rung[0], int) and _is_number(rung[1]) for rung in rungs
    ):
        yield "curve.held_back", rungs


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


_NESTED = ("features", "fields", "recipe_features", "curve", "signals", "score")
"""Fields that a table keeps as JSON text."""
_SPREAD = {
    "score": ("total", "training", "held_back", "stability"),
    "signals": ("loss", "gradient_norm", "gradient_range"),
}
"""Of those, what has columns of its own in a CSV file, which whoever opens it sorts by."""


def _write_csv(path: Path, lines: Iterable[Line]) -> int:
    """Writes a table for spreadsheets and other programs, a line at a time."""
    parts = {f"{name}_{part}": (name, part) for name, each in _SPREAD.items() for part in each}
    plain = [name for name in FIELDS if name not in _SPREAD]
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow([*plain, *parts])
        for line in map(finite, lines):
            cells = [json.dumps(line[name]) if name in _NESTED else line[name] for name in plain]
            table.writerow([*cells, *((line[name] or {}).get(part) for name, part in parts.values())])
            count += 1
    return count


def _write_parquet(path: Path, lines: Iterable[Line]) -> int:
    import pandas as pd

    rows = [
        {name: json.dumps(finite(value)) if name in _NESTED else value for name, value in line.items()}
        for line in lines
    ]
    frame = pd.DataFrame(rows, columns=list(FIELDS))
    try:
        frame.to_parquet(path, index=False)
    except ImportError:
        raise ArgumentError(
            f"{path.name} needs pyarrow, which is not installed: {to_install('report')}. Or write .jsonl."
        ) from None
    return len(frame)


def _parquet(path: Path) -> Iterator[tuple[int, Line | str]]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as problem:
        raise ArgumentError(f"{path} cannot be read ({problem}). Give a file of records.") from None
    for place, row in enumerate(frame.to_dict("records"), start=1):
        line = {str(name): json.loads(value) if name in _NESTED else value for name, value in row.items()}
        lr = line.get("lr")
        yield place, {**line, "lr": None if isinstance(lr, float) and math.isnan(lr) else lr}
