"""A task seen at a glance: its architecture without a pass through its weights, its data by their first batches."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from ..graph import Graph
from ..knowledge.features import Features
from ..task.batches import Batch, rows
from ..task.casting import Numbers
from ..task.checks import check_trainable, unwrap
from ..task.data import BATCH_ROWS, CACHE_BATCHES, all_batches, check_finite, fetch, held_out
from ..task.features import data_features
from ..task.losses import Loss, best_constant, check_labels, class_count, prediction, targets
from ..task.priors import constant_of
from ..task.snapshot import preserved_random
from ..task.task import example_task
from .tracing import trace, trace_task

ENOUGH_ROWS = 1024
"""Rows that are looked at; of labels they tell the entropy of a hundred classes to a few percent."""
MOST_BATCHES = 16


@dataclass(frozen=True, eq=False)
class Glimpse:
    """What was seen of a task.

    Attributes:
        graph: the architecture, with the frequency of the labels.
        data: what the data are, in numbers; empty where there are none.
        batch: the first one; None where there are no data.
    """

    graph: Graph
    data: Features
    batch: Batch | None = None


def glimpse(
    model: nn.Module,
    data: Any = None,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
) -> Glimpse:
    """Returns what a task is, read from a copy of the model without weights; the model is left as it was.

    Where that copy cannot run (a model or a step that asks for values), the model itself runs one batch forward.

    Args:
        model: on any device, the meta device included.
        data: as for `autoinit.trace`. None: the model's own `dummy_inputs` are used, else its module tree is read.
        loss: callable(output, target) -> scalar; inferred where it is None.
        step: callable(model, batch) -> scalar, for whatever else trains by one loss.
    """
    model = unwrap(model)
    check_trainable(model)
    if data is None:
        return _without_weights(model, lambda one: Glimpse(trace(one), {}))
    with torch.inference_mode(False), preserved_random():
        batches, total = _first_batches(data, Numbers.of(model))
    check_finite(batches)
    return _without_weights(model, lambda one: _seen(one, batches, total, loss, step))


def weightless(model: nn.Module) -> nn.Module:
    """Returns a copy of a model on the meta device, whose weights take no memory."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        memo.update({id(tensor): _empty(tensor) for tensor in held if isinstance(tensor, Tensor)})
    return copy.deepcopy(model, memo)


def _empty(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _without_weights(model: nn.Module, read: Callable[[nn.Module], Glimpse]) -> Glimpse:
    """Returns what is read of a copy without weights; of the model itself where that fails."""
    with torch.inference_mode(False), preserved_random():
        try:
            return read(weightless(model))
        except Exception:  # whatever cannot be copied, or asks for a value, does so in its own way
            return read(model)


def _seen(
    model: nn.Module,
    batches: Sequence[Batch],
    total: int | None,
    loss: Callable[[Any, Any], Tensor] | None,
    step: Callable[[nn.Module, Batch], Tensor] | None,
) -> Glimpse:
    objective = Loss(loss, step, example=True)
    outputs: list[Tensor | None] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        found = prediction(output)
        outputs.append(None if found is None else torch.empty_like(found, device="meta"))  # its shape is enough

    task = dataclasses.replace(example_task(model, [batches[0]]), _loss=objective)
    hook = task.model.register_forward_hook(look)
    try:
        graph = trace_task(task)
    finally:
        hook.remove()
    output = next(iter(outputs), None)
    if objective.name == "cross_entropy" and (width := class_count(objective.name, output, batches[0])):
        check_labels(targets(batches), width)
    known = best_constant(objective.name, output, batches)
    if objective.name == "custom":
        known = constant_of(objective.given, output, batches)
    found = data_features(batches, () if known.independent else known.label_prior, known.loss)
    found.pop("data_batches", None)
    if total is not None and total > 1:
        found["data_batches"] = math.log2(_trained_on(total, rows(batches[0])))
    return Glimpse(
        dataclasses.replace(graph, label_prior=known.label_prior, independent_labels=known.independent),
        found,
        batches[0],
    )


# The first batches


def _first_batches(data: Any, numbers: Numbers) -> tuple[list[Batch], int | None]:
    """Returns batches of enough rows, and how many there would be of all rows; None where nothing tells."""
    if isinstance(data, DataLoader):
        return fetch(_First(data, data.generator), numbers=numbers), _length(data)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        count = _length(data) or 0
        chosen = range(0, count, max(1, count // ENOUGH_ROWS))
        some = data if len(chosen) == count else Subset(data, list(chosen))
        batches = fetch(some, numbers=numbers)
        return batches, max(len(batches), count // BATCH_ROWS)
    if isinstance(data, tuple) and data and all(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in data):
        lengths = {len(part) for part in data}
        count = max(lengths)
        stride = count // ENOUGH_ROWS if len(lengths) == 1 else 1
        batches = all_batches(tuple(part[::stride] for part in data) if stride > 1 else data, numbers=numbers)
        return batches, max(len(batches), count // BATCH_ROWS if stride > 1 else 0)
    if isinstance(data, (Iterator, IterableDataset)):
        return fetch(_First(data, None), numbers=numbers), None
    batches = all_batches(data, numbers=numbers)
    return batches[:MOST_BATCHES], len(batches)


class _First:
    """The first batches of an iterable; with its generator, which is put back by whoever reads them."""

    def __init__(self, source: Iterable[Any], generator: torch.Generator | None) -> None:
        self.source, self.generator = source, generator

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in itertools.islice(self.source, MOST_BATCHES):
            yield batch
            seen += rows(batch)
            if seen >= ENOUGH_ROWS:
                return


def _length(data: Any) -> int | None:
    try:
        return len(data) if isinstance(data, Sized) else None
    except TypeError:  # a loader of rows that come without a number
        return None


def _trained_on(total: int, size: int) -> int:
    """Returns how many of so many batches are left to train on, when a part is held back as a search does."""
    stand_ins = [torch.empty(size, 0) for _ in range(min(total, CACHE_BATCHES))]
    return max(1, len(held_out(stand_ins)[0]))
