"""A ticket as one file: masks and weights as safetensors, where it comes from as JSON in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SourceError
from ..inheritance.weight_files import Stored, facts_of, read_file, write_file
from ..jsonfile import from_data, to_data

_KIND, _VERSION = "ticket", 1
_MASK, _WEIGHT = "mask/", "weight/"
_REMEDY = "A ticket is what Ticket.save has written."


@dataclass(frozen=True)
class Head:
    """What a file says of its ticket beside tensors.

    Attributes:
        method: that chose the masks.
        sparsity: that was asked for.
        notes: in whole sentences.
        provenance: numbers and versions behind it.
        kind: of the file.
        version: of its form.
    """

    method: str
    sparsity: float
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    kind: str = _KIND
    version: int = _VERSION


def write(path: Path, head: Head, masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Writes a ticket, whole or not at all; masks are bytes of 0 and 1."""
    tensors = {f"{_MASK}{name}": mask.to(torch.uint8) for name, mask in masks.items()}
    tensors |= {f"{_WEIGHT}{name}": value for name, value in weights.items()}
    write_file(path, tensors, to_data(head))


def read(path: Path) -> tuple[Head, dict[str, Tensor], dict[str, Tensor]]:
    """Returns what a file says of its ticket, the masks and the weights.

    Raises:
        SourceError: the file is damaged, or no ticket.
    """
    stored = read_file(path)
    head = _head(path)
    masks = {name: _mask(stored, name, path) for name in _names(stored, _MASK)}
    weights = {name: stored.read(f"{_WEIGHT}{name}") for name in _names(stored, _WEIGHT)}
    if not masks or any(name not in weights or weights[name].shape != mask.shape for name, mask in masks.items()):
        raise SourceError(f"{path} is a damaged ticket: its masks do not fit its weights. {_REMEDY}")
    return head, masks, weights


def _names(stored: Stored, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in stored.shapes if name.startswith(prefix)]


def _mask(stored: Stored, name: str, path: Path) -> Tensor:
    mask = stored.read(f"{_MASK}{name}")
    if mask.dtype != torch.uint8 or bool((mask > 1).any()):
        raise SourceError(f"{path} is a damaged ticket: the mask of {name} holds other values than 0 and 1. {_REMEDY}")
    return mask.bool()


def _head(path: Path) -> Head:
    what = f"The ticket {path}"
    data = facts_of(path, what)
    if data is None:
        raise SourceError(f"{path} holds weights and no ticket. {_REMEDY}")
    if data.get("kind") != _KIND or data.get("version") != _VERSION:
        raise SourceError(
            f"{path} says that it is {data.get('kind')!r} of version {data.get('version')!r}; this version of autoinit "
            f"reads {_KIND!r} of version {_VERSION}. {_REMEDY}"
        )
    return from_data(Head, data, SourceError, what)
