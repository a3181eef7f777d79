"""A small network around a block that a test writes, and the graph that is read from it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoinit.graph import Graph
from autoinit.tracing.tracing import read_graph

D = 8


class Net(nn.Module):
    """A stem, layers `a` to `f`, a norm and a head around a block that the test writes."""

    def __init__(self, block: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, D), nn.Linear(D, 2)
        self.a, self.b, self.c, self.d = (nn.Linear(D, D) for _ in range(4))
        self.norm = nn.LayerNorm(D)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(D))
        self.shift = nn.Parameter(torch.zeros(D))
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self, self.stem(x)))


def read(block: Callable[[Net, Tensor], Tensor]) -> Graph:
    net = Net(block)
    x = torch.randn(4, 6, 3)
    return read_graph(net, lambda: net(x).pow(2).mean())
