"""How far what a model computes differs between the rows of a batch: what no bias and no mean has a part in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..graph import Graph
from ..task.batches import move, rows, tensors
from ..task.losses import split
from ..task.products import watch_products
from ..task.task import Task


def rows_apart(task: Task, graph: Graph) -> dict[str, float]:
    """Returns by weight how far its outputs for two rows differ: the root mean square deviation from the rows' mean.

    Where a weight is used several times, as by the steps of a recurrent cell, its largest counts. Weights whose
    products are not seen, or tell no rows, are left out. One forward pass in training mode; the model is put back.

    Args:
        task: what is trained; its first training batch is looked at.
        graph: the model's architecture.
    """
    batch = move(task.train[0], task.device)
    count = rows(batch)
    found: dict[str, float] = {}

    def on_product(name: str, output: Tensor) -> None:
        apart = _apart(output, count)
        if apart is not None and name in graph:
            found[name] = max(apart, found.get(name, 0.0))

    with task.preserved():
        task.model.train()
        with watch_products(task.model, on_product):
            task.loss(batch)
    return found


def inputs_apart(task: Task) -> float | None:
    """Returns how far the rows of the first training batch differ themselves; None where it holds no numbers."""
    batch = task.train[0]
    arguments, keywords, target = split(batch)
    own = [x for x in tensors([*arguments, *keywords.values()]) if x.is_floating_point()]
    given = [x for x in own if x is not target]  # what is its own target is an input, too
    found = [_apart(x, rows(batch)) for x in given or own]
    return max((one for one in found if one is not None), default=None)


def _apart(output: Tensor, count: int) -> float | None:
    """Returns how far the values of an output differ between rows; None where its rows cannot be told.

    Rows are on the first axis, alone or with what is flattened into it, or on the second, behind time.

    Args:
        output: [rows, …], [rows · places, …] or [time, rows, …].
        count: rows of the batch.
    """
    if count < 2 or not output.dim():
        return None
    values = output.detach()
    values = torch.view_as_real(values) if values.is_complex() else values
    if values.shape[0] != count and values.dim() > 1 and values.shape[1] == count:
        values = values.transpose(0, 1)
    if not values.numel() or values.shape[0] % count:
        return None
    # A mean of what is nearly one number is not that number in float32: spreads of 1e-7 of it would be its rounding.
    by_row = values.reshape(count, -1).double()
    return math.sqrt((by_row - by_row.mean(0)).square().mean().item())
