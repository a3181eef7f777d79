"""Frozen dataclasses as JSON: written in one form, read back validated."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Returns the validator of a dataclass, built once: it is slow to build."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_data(value: Any) -> Any:
    """Returns the JSON-ready form (dicts, lists, numbers, strings) of a dataclass."""
    return _adapter(type(value)).dump_python(value, mode="json")


def as_before(data: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """Returns data without the fields that came later, where they hold what was true of all data before.

    So what needs none of them is written, hashed and read as it was.

    Args:
        data: as `to_data` gives it.
        added: each of those fields → that value.
    """
    return {name: value for name, value in data.items() if name not in added or value != added[name]}


def from_data(kind: type[T], data: Any, error: type[Exception], what: str) -> T:
    """Returns the dataclass `kind` read from JSON-ready data.

    Args:
        kind: the dataclass to build.
        data: as `to_data` gives it.
        error: the error to raise.
        what: the name of what is read, for the message: "plan file 'init.json'".

    Raises:
        error: where a field is missing, unknown, or of another type; the message names the first ones.
    """
    try:
        value: T = _adapter(kind).validate_python(data)
        return value
    except ValidationError as problem:
        details = "; ".join(_detail(item["loc"], item["msg"]) for item in problem.errors()[:3])
        raise error(f"{what} is not a valid {kind.__name__}: {details.rstrip('.')}.") from None


def _detail(place: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, place))}: {message}" if place else message


def finite(value: Any) -> Any:
    """Returns the same tree of dicts and lists with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parse(text: str, error: type[Exception], what: str) -> dict[str, Any]:
    """Returns the JSON object in `text`, or raises `error` naming the place of the damage."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as problem:
        raise error(f"{what} is damaged: not JSON at line {problem.lineno}, column {problem.colno}.") from None
    except (ValueError, RecursionError) as problem:  # a number of thousands of digits, a list in a list in a list
        raise error(f"{what} is damaged: {str(problem).rstrip('.')}.") from None
    if not isinstance(data, dict):
        raise error(f"{what} holds a JSON {type(data).__name__}; a JSON object is needed.")
    return data


def write(path: str | os.PathLike[str], data: Any) -> None:
    """Writes JSON to a file, whole or not at all: a crash leaves the old file as it was."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields the path of a file that takes the place of another one at the end; after an error nothing has changed."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # as any other file; temporary ones are readable by their owner only
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
