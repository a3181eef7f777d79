"""Rescalings of drawn weights that are measured on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..graph import Graph
from .lsuv import lsuv

Calibration = Callable[[nn.Module, Graph, Callable[[], Any], Mapping[str, float]], Mapping[str, float]]

CALIBRATIONS: dict[str, Calibration] = {"lsuv": lsuv}
"""Name → function(model, graph, run, targets) that rescales weights in place and returns the factor of each."""
