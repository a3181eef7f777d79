"""What a batch is made of: its tensors, rows and halves, moved, copied and described."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

Batch = Any
"""A tensor, tuple, list, dict or dataclass; what a model or a `step` takes."""


@runtime_checkable
class _NamedTuple(Protocol):
    _fields: tuple[str, ...]


def move(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch with its tensors on the device; what holds none is passed through."""
    return map_tensors(lambda tensor: tensor.to(device), batch)


def clone(batch: Batch) -> Batch:
    """Returns the batch with copies of its tensors."""
    return map_tensors(Tensor.clone, batch)


def map_tensors(function: Callable[[Tensor], Any], batch: Batch) -> Batch:
    """Returns the batch with `function` of each of its tensors, containers and their types kept."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, tuple) and isinstance(batch, _NamedTuple):
        return type(batch)(*(map_tensors(function, item) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(map_tensors(function, item) for item in batch)
    if isinstance(batch, Mapping):
        items = {key: map_tensors(function, value) for key, value in batch.items()}
        if not isinstance(batch, MutableMapping):
            return items
        result = copy.copy(batch)
        for key, value in items.items():  # a ModelOutput refuses `update`
            result[key] = value
        return result
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        changes = {
            field.name: map_tensors(function, vars(batch)[field.name])
            for field in dataclasses.fields(batch)
            if field.init
        }
        return dataclasses.replace(batch, **changes)
    return batch


def tensors(batch: Batch) -> list[Tensor]:
    """Returns the tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        batch = list(vars(batch).values())
    return [tensor for item in batch for tensor in tensors(item)] if isinstance(batch, (tuple, list)) else []


def rows(batch: Batch) -> int:
    """Returns the number of rows: the length of its first tensor that has one."""
    return next((tensor.shape[0] for tensor in tensors(batch) if tensor.dim()), 1)


def regrouped(batches: Sequence[Batch], chosen: Sequence[int], sizes: Sequence[int]) -> list[Batch] | None:
    """Returns some rows of batches in new batches; None where rows cannot be told.

    They can where every part of every batch is a tensor with as many rows, alike but for their number.

    Args:
        batches: at least one.
        chosen: numbers of the rows to take, counted over all batches, in the order wanted.
        sizes: rows of each new batch, as many in all.
    """
    counts = [rows(batch) for batch in batches]
    if len({signature(batch) for batch in batches}) > 1 or not all(
        _is_rows(batch) and row_counts(batch) == {count} for batch, count in zip(batches, counts, strict=True)
    ):
        return None
    starts = list(itertools.accumulate(counts, initial=0))[:-1]
    wanted = torch.tensor(chosen)
    places, parts = [], []
    for batch, start, count in zip(batches, starts, counts, strict=True):
        here = ((wanted >= start) & (wanted < start + count)).nonzero().flatten()
        places.append(here)
        parts.append([tensor[(wanted[here] - start).to(tensor.device)] for tensor in tensors(batch)])
    back = torch.cat(places).argsort()
    columns = [
        torch.split(torch.cat(column)[back.to(column[0].device)], list(sizes)) for column in zip(*parts, strict=True)
    ]
    return [_like(batches[0], list(made)) for made in zip(*columns, strict=True)]


def _is_rows(batch: Batch) -> bool:
    """Whether a batch is made of tensors and of nothing else, in containers whose order is known."""
    if isinstance(batch, Tensor):
        return batch.dim() > 0
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    return isinstance(batch, (tuple, list)) and bool(batch) and all(map(_is_rows, batch))


def _like(batch: Batch, values: list[Tensor]) -> Batch:
    """Returns a batch with other tensors in the place of its own, in their order."""
    return map_tensors(lambda _: values.pop(0), batch)


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """Returns the upper and the lower half of a batch's rows, or None where it cannot be halved."""
    count = rows(batch)
    if count < 2 or row_counts(batch) != {count}:
        return None
    middle = count // 2
    return select_rows(batch, slice(0, middle)), select_rows(batch, slice(middle, 2 * middle))


def describe(batch: Batch) -> str:
    """Returns shapes and dtypes, as "[64, 784] float32, [64] int64"."""
    if isinstance(batch, Tensor):
        return f"{list(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        return "(" + ", ".join(describe(item) for item in batch) + ")"
    return type(batch).__name__


def signature(batch: Batch) -> Hashable:
    """Returns structure, dtypes and shapes without their first axis: what a model that takes one such batch takes."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape[1:]), batch.dim(), batch.dtype
    if isinstance(batch, Mapping):
        return tuple((str(key), signature(value)) for key, value in batch.items())
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return signature(vars(batch))
    if isinstance(batch, (tuple, list)):
        return tuple(signature(item) for item in batch)
    return type(batch).__qualname__


def row_counts(tree: Any) -> set[int]:
    """Returns the different lengths of the first axes of a batch's tensors."""
    return {tensor.shape[0] for tensor in tensors(tree) if tensor.dim()}


def select_rows(tree: Any, index: Any) -> Any:
    """Returns the rows of every tensor that has as many as the first; others are passed whole."""
    count = rows(tree)

    def chosen(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != count:
            return tensor
        here = index.to(tensor.device) if isinstance(index, Tensor) else index  # parts may lie on several devices
        return tensor[here]

    return map_tensors(chosen, tree)
