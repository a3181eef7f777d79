"""Study files: TOML in, a checked `Study` out; what may change in a file once its study has begun."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ArgumentError
from .grids import Grid
from .problems import Problem, dotted, problems
from .spec import Study, TaskSpec

MAY_CHANGE = ("description", "budget", "timeout", "storage", "executor", "workers")
"""Fields of a study that change no result; they may differ from run to run."""

SHOWN = 5
"""Problems of one file that a message lists."""

# From the file


class StudyFile(Study):
    """What a study file may hold: a study, some of whose tasks are written as grids.

    Attributes:
        tasks: written out.
        grids: expanded behind them.
    """

    tasks: tuple[TaskSpec, ...] = ()
    grids: tuple[Grid, ...] = ()


def read_study(path: str | os.PathLike[str]) -> Study:
    """Returns the study that a file describes, its grids expanded.

    Args:
        path: of a TOML file.

    Raises:
        ArgumentError: the file cannot be read or is no study; the message names the lines and the keys, what was found
            there, and what is allowed.
    """
    text = _text(Path(path))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ArgumentError(f"{path} is not TOML: {error}.") from None
    try:
        file = StudyFile.model_validate(data)
    except ValidationError as error:
        raise ArgumentError(_message(path, text, problems(error, StudyFile))) from None
    return _expanded(file, path, text)


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of a study file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudyFile.model_json_schema()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}."
        ) from None
    except OSError as error:
        raise ArgumentError(f"The study file {path} cannot be read: {error.strerror}.") from None


def _expanded(file: StudyFile, path: str | os.PathLike[str], text: str) -> Study:
    """Returns the study of a checked file; problems that only show in the expanded tasks get their grid's place."""
    tasks = [_Placed(task, ("tasks", number)) for number, task in enumerate(file.tasks)]
    for number, grid in enumerate(file.grids):
        place = ("grids", number)
        try:
            found = [_Placed(task, place) for task in grid.tasks()]
        except ArgumentError as error:
            raise ArgumentError(_message(path, text, [Problem(place, None, str(error))])) from None
        if not found:
            kinds = ", ".join(sorted({str(data.kind) for data in grid.data}))
            message = f"No model of this grid takes any of its data. Kinds of the data: {kinds}."
            raise ArgumentError(_message(path, text, [Problem(place, None, message)]))
        tasks += found
    fields = {name: value for name, value in file if name in Study.model_fields}
    try:
        return Study.model_validate({**fields, "tasks": tuple(placed.task for placed in tasks)})
    except ValidationError as error:
        raise ArgumentError(_message(path, text, [_placed(p, tasks) for p in problems(error, Study)])) from None


@dataclass(frozen=True, slots=True)
class _Placed:
    """A task, and where in the file it comes from."""

    task: TaskSpec
    place: tuple[int | str, ...]


def _placed(problem: Problem, tasks: Sequence[_Placed]) -> Problem:
    if problem.path[:1] != ("tasks",) or len(problem.path) < 2:
        return problem
    origin = tasks[int(problem.path[1])].place
    rest = problem.path[2:] if origin[0] == "tasks" else ()
    return Problem((*origin, *rest), problem.found, problem.message)


# Where a problem stands


def _message(path: str | os.PathLike[str], text: str, found: Sequence[Problem]) -> str:
    lines = [f"{path}{_at_line(text, problem.path)}: {problem}" for problem in found[:SHOWN]]
    more = [f"{path}: and {len(found) - SHOWN} more."] if len(found) > SHOWN else []
    return "\n".join([*lines, *more])


def _at_line(text: str, path: tuple[int | str, ...]) -> str:
    line = line_of(text, path)
    return f", line {line}" if line else ""


def line_of(text: str, path: Sequence[int | str]) -> int | None:
    """Returns the line, from 1, where a key path is given its value; a missing key's is its table's; None for none.

    The parser gives no places. But the lines up to some place are TOML too, so the line is the first one that brings
    the path in, and is found by bisection.

    Args:
        text: TOML without mistakes.
        path: of keys and, in arrays, of numbers from 0.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    _, whole = _start(lines, len(lines))
    while path and not _has(whole, path):
        path = path[:-1]
    if not path:
        return None
    without, having = 0, len(lines)
    while having - without > 1:
        middle = (without + having) // 2
        end, data = _start(lines, middle)
        if _has(data, path):
            having = end
        else:
            without = middle
    end, _ = _start(lines, without)
    return end + 1


def _start(lines: Sequence[str], limit: int) -> tuple[int, dict[str, Any]]:
    """Returns the longest start of the file, of `limit` lines at most, that is TOML, and what it says."""
    for end in range(limit, 0, -1):
        for closing in ("", "\n]", "\n]]", "\n]]]"):  # a list over several lines is closed behind any of its elements
            try:
                return end, tomllib.loads("\n".join(lines[:end]) + closing)
            except tomllib.TOMLDecodeError:
                continue
    return 0, {}


def _has(data: Any, path: Sequence[int | str]) -> bool:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


# What may change


def study_fingerprint(study: Study) -> str:
    """Returns a hash of all that must stay while a study goes on, its tasks aside: their list may grow."""
    fixed = {name: value for name, value in study.model_dump(mode="json").items() if name not in (*MAY_CHANGE, "tasks")}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def difference(old: dict[str, Any], new: Study) -> list[str]:
    """Returns what changed in a study though it must not, one line each; none where the study may go on.

    Args:
        old: the study as it was begun, as `model_dump(mode="json")` gives it.
        new: as it is now.

    Raises:
        ArgumentError: `old` is no study that this version knows.
    """
    try:
        begun = Study.model_validate(old)
    except ValidationError as error:
        details = "; ".join(str(found) for found in problems(error, Study)[:SHOWN])
        raise ArgumentError(
            f"The study was begun by another version of autoinit, and does not read: {details}"
        ) from None
    before, now = begun.model_dump(mode="json"), new.model_dump(mode="json")
    tasks = {task["name"]: task for task in now.pop("tasks")}
    found = []
    for task in before.pop("tasks"):
        name = task["name"]
        if name in tasks:
            found += [f"task {name!r}: {change}" for change in _changes(task, tasks[name])]
        else:
            found.append(f"task {name!r} is gone")
    for name in MAY_CHANGE:
        del before[name], now[name]
    return [*_changes(before, now), *found]


def _changes(old: Any, new: Any, path: tuple[int | str, ...] = ()) -> Iterator[str]:
    """Yields each place where two trees differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _changes(old.get(key), new.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and old != new:
        gone, come = ([_json(item) for item in a if item not in b] for a, b in ((old, new), (new, old)))
        parts = [f"{', '.join(gone)} gone"] * bool(gone) + [f"{', '.join(come)} new"] * bool(come)
        yield f"{dotted(path)}: {'; '.join(parts) or 'the order changed'}"
    elif old != new or type(old) is not type(new):
        yield f"{dotted(path)}: was {_json(old)}, is now {_json(new)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
