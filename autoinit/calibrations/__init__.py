"""Rescalings of drawn weights that are measured on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..graph import Graph
from ..task import Task
from .lsuv import lsuv

Calibration = Callable[[nn.Module, Graph, Callable[[], Any], Mapping[str, float]], Mapping[str, float]]

CALIBRATIONS: dict[str, Calibration] = {"lsuv": lsuv}
"""Name → function(model, graph, run, targets) that rescales weights in place and returns the factor of each."""


def forward_pass(task: Task, seed: int) -> Callable[[], None]:
    """Returns one forward pass on the task's first batch, the same at every call, for a calibration to watch.

    It runs in training mode and seeds torch's generators, so that normalization and dropout are as in training:
    call it inside `task.preserved()`.
    """

    def run() -> None:
        torch.manual_seed(seed)
        if not task.model.training:
            task.model.train()
        with torch.no_grad():
            task.loss(task.train[0])

    return run
