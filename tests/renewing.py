"""What tests of renewed units share: fresh draws, and values set."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoinit.graph import Graph


def fresh_of(graph: Graph, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {layer.name: torch.randn(layer.shape, generator=generator) for layer in graph.weights}


def set_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            (buffers[name] if name in buffers else model.get_parameter(name)).copy_(value)
