"""Knowledge as a file: one JSON object a line, compressed; a head that says what it is, then a line for each task."""

from __future__ import annotations

import json
import lzma
import os
from importlib import resources
from pathlib import Path
from typing import IO, Any

from ..errors import KnowledgeError
from .lines import read_lines
from .tables import Knowledge, knowledge_of, merged, rows_of, task_of

SCHEMA = 1
"""Of a knowledge file."""
KIND = "autoinit knowledge"
SHIPPED = "shipped.jsonl.xz"


def write_knowledge(path: str | os.PathLike[str], knowledge: Knowledge) -> None:
    """Writes knowledge to a file, whole or not at all.

    Args:
        path: ends in ".jsonl.xz".
        knowledge: what to keep.

    Raises:
        KnowledgeError: it cannot be written.
    """
    head = {"kind": KIND, "schema": SCHEMA, "hash": knowledge.hash, "made": knowledge.made}
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in (head, *rows_of(knowledge)))
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        part.write_bytes(lzma.compress(text.encode(), preset=9))
        os.replace(part, target)
    except OSError as problem:
        raise KnowledgeError(
            f"{target} cannot be written ({problem.strerror or problem}). Give a path in a folder that exists."
        ) from None


def read_knowledge(path: str | os.PathLike[str]) -> Knowledge:
    """Returns what `write_knowledge` wrote.

    Raises:
        KnowledgeError: it cannot be read, is another kind of file, of a later schema, or was changed or cut off.
    """
    source = Path(path)
    try:
        text = lzma.decompress(source.read_bytes()).decode()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as problem:
        raise KnowledgeError(f"{source} cannot be read as knowledge ({problem}). {_ALLOWED}") from None
    return _parsed(text, str(source))


def shipped() -> Knowledge:
    """Returns what comes with the package."""
    data = resources.files(__package__).joinpath(SHIPPED).read_bytes()
    return _parsed(lzma.decompress(data).decode(), "the shipped knowledge")


def shipped_hash() -> str:
    """Returns the hash of what comes with the package, of whose file only the first line is read."""
    with resources.files(__package__).joinpath(SHIPPED).open("rb") as file:
        return _first_hash(file, "the shipped knowledge")


def knowledge_hash(path: str | os.PathLike[str]) -> str:
    """Returns the hash of a knowledge file, of which only the first line is read.

    Raises:
        KnowledgeError: it cannot be read, is another kind of file, or of another schema.
    """
    try:
        with Path(path).open("rb") as file:
            return _first_hash(file, str(path))
    except OSError as problem:
        raise KnowledgeError(f"{path} cannot be read as knowledge ({problem}). {_ALLOWED}") from None


def _first_hash(file: IO[bytes], what: str) -> str:
    try:
        with lzma.open(file) as opened:
            return str(_head(opened.readline().decode(), what).get("hash"))
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as problem:
        raise KnowledgeError(f"{what} cannot be read as knowledge ({problem}). {_ALLOWED}") from None


def gathered(*paths: str | os.PathLike[str]) -> tuple[Knowledge, list[str]]:
    """Returns what files tell together, and what could not be read of them, in words.

    Args:
        *paths: knowledge (".jsonl.xz"), or records of studies (".jsonl", ".parquet").

    Raises:
        KnowledgeError: a knowledge file cannot be used.
        ArgumentError: a file of records cannot be read.
    """
    known = [read_knowledge(path) for path in paths if _is_knowledge(path)]
    read = read_lines(*(Path(path) for path in paths if not _is_knowledge(path)))
    return merged(*known, knowledge_of(read.lines)), read.skipped


def _is_knowledge(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix == ".xz"


_ALLOWED = (
    "Allowed: a .jsonl.xz file as `autoinit recommender fit` writes it, or records of studies as .jsonl or .parquet."
)


def _parsed(text: str, what: str) -> Knowledge:
    first, *rest = text.splitlines() or [""]
    head = _head(first, what)
    tasks = []
    for number, row in enumerate(rest, start=2):
        try:
            tasks.append(task_of(_object(row, what, number)))
        except (KeyError, TypeError, ValueError) as problem:
            raise KnowledgeError(f"{what}, line {number}: {problem!r} ; it was changed. {_ALLOWED}") from None
    found = Knowledge(tuple(tasks), head.get("made", {}))
    if found.hash != head.get("hash"):
        raise KnowledgeError(f"{what} is not what was written: its hash is {found.hash}, not {head.get('hash')}.")
    return found


def _head(first: str, what: str) -> dict[str, Any]:
    """Returns the first line of a knowledge file, checked to be one."""
    head = _object(first, what, 1)
    if head.get("kind") != KIND:
        raise KnowledgeError(f"{what} is no knowledge file: its first line does not say so. {_ALLOWED}")
    if head.get("schema") != SCHEMA:
        raise KnowledgeError(
            f"{what} has schema {head.get('schema')!r}; this version of autoinit reads {SCHEMA}. Make it anew from "
            "records with `autoinit recommender fit`, or use the version of autoinit that wrote it."
        )
    return head


def _object(row: str, what: str, number: int) -> dict[str, Any]:
    try:
        found = json.loads(row)
    except json.JSONDecodeError as problem:
        raise KnowledgeError(
            f"{what}, line {number}: not JSON at column {problem.colno}; cut off or damaged. {_ALLOWED}"
        ) from None
    if not isinstance(found, dict):
        raise KnowledgeError(f"{what}, line {number}: a JSON {type(found).__name__} in the place of an object.")
    return found
