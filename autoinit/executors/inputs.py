"""The batches that a recorded step can be given, and the place in memory that it reads them from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from ..task.batches import Batch, map_tensors, tensors
from ..task.task import Task
from .capture import Unrecordable

MOST_SHAPES = 0.5
"""Share of the batches that has to be of the recorded shape: the others are computed operation by operation."""


class Inputs:
    """Batches of the shape that most have.

    Attributes:
        fitting: those of them to train on.
        batch: what a recorded step reads.

    Args:
        task: with the batches.

    Raises:
        Unrecordable: they are of too many shapes.
    """

    def __init__(self, task: Task) -> None:
        self.fitting = _commonest(task)
        self.batch = map_tensors(lambda value: value.detach().to(task.device, copy=True), self.fitting[0])
        self._parts = {id(batch): tensors(batch) for batch in self.fitting}
        self._places = tensors(self.batch)

    def load(self, batch: Batch) -> bool:
        """Copies a batch to where a recorded step reads it; returns whether it is one that fits."""
        parts = self._parts.get(id(batch))
        if parts:
            with torch.no_grad():
                torch._foreach_copy_(self._places, parts)
        return parts is not None


def _commonest(task: Task) -> tuple[Batch, ...]:
    """Returns the batches of the shape that most of them have."""
    frames = [frame(batch) for batch in task.train]
    shape, count = Counter(frames).most_common(1)[0]
    if count < MOST_SHAPES * len(frames):
        raise Unrecordable(f"its batches are of {len(set(frames))} shapes, and a graph holds one")
    return tuple(batch for batch, its in zip(task.train, frames, strict=True) if its == shape)


def frame(batch: Batch) -> Hashable:
    """Returns all that a step sees of a batch beside its tensors' values; another object is like none but itself."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype, batch.layout
    if isinstance(batch, Mapping):
        return type(batch), tuple((key, frame(value)) for key, value in batch.items())
    if isinstance(batch, (tuple, list)):
        return type(batch), tuple(map(frame, batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return type(batch), tuple(frame(vars(batch)[field.name]) for field in fields(batch))
    return (type(batch), batch) if isinstance(batch, (bool, int, float, str, bytes, type(None))) else id(batch)
