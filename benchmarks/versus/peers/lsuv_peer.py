"""The package `lsuv` (Mishkin & Matas 2016, arXiv:1511.06422), called as its README says."""

from __future__ import annotations

from torch import nn

from ...common.tasks import BenchTask
from .cost import Start, counted


def prepare(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets orthogonal weights with unit variance of each layer's output on one training batch."""
    from lsuv import lsuv_with_singlebatch

    batch = task.train_batches(seed)[0]
    x = batch["input_ids"] if isinstance(batch, dict) else batch[0]
    with counted(model, task.rows) as passes:
        lsuv_with_singlebatch(model, x, verbose=False)
    return Start(passes.steps, "counted")
