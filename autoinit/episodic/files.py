"""Files of a learned start and of its unfinished learning: safetensors, with the rest as JSON in their head."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ArgumentError, SourceError
from ..inheritance.weight_files import facts_of, read_file, write_file
from .objective import Tensors

FORMAT = 1
"""Version of the form of these files."""


def check_folder(path: str | os.PathLike[str], name: str) -> Path:
    """Returns a path that a file can be written to, or raises ArgumentError."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"{name} is a {type(path).__name__}. Pass the path of a file.")
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        why = "it is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise ArgumentError(f"{name} is {str(path)!r}, where no file can be written: {why}.")
    return target


def write(path: Path, kind: str, facts: Mapping[str, Any], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Writes tensors with facts about them, whole or not at all: a crash leaves an older file as it was.

    Args:
        path: of the file.
        kind: what it is, in words, which `read` asks for.
        facts: that JSON can hold.
        parts: tensors by name, in parts that each have a name.
    """
    tensors = {f"{part}/{name}": value for part, named in parts.items() for name, value in named.items()}
    write_file(path, tensors, {"kind": kind, "format": FORMAT, **facts})


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensors]]:
    """Returns the facts and the tensors of a file, in their parts.

    Raises:
        SourceError: it cannot be read, is damaged, something else, or from a newer version.
    """
    stored = read_file(path)
    facts = facts_of(path, f"the head of {path}")
    if facts is None:
        raise SourceError(f"{path} holds weights, and is not {kind}. Weights are set by autoinit.inherit_ or by torch.")
    if facts.get("kind") != kind:
        raise SourceError(f"{path} is {facts.get('kind', 'something else')}, where {kind} is needed.")
    if facts.get("format") != FORMAT:
        raise SourceError(f"{path} has the form {facts.get('format')!r}, and {FORMAT} is read. Update autoinit.")
    parts: dict[str, Tensors] = {}
    for key in stored.shapes:
        part, _, name = key.partition("/")
        parts.setdefault(part, {})[name] = stored.read(key).clone()
    return dict(facts), parts
