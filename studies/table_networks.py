"""Networks for tables and for graphs as their owners would write them: torch.nn and its default draws.

A study file names one as `table_networks:FTTransformer`, with arguments; `features` and `outputs` come from the data
entry of the file.
"""

# ruff: noqa: D102  (a forward is described by its class)

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FTTransformer(nn.Module):
    """A Transformer over the columns of a table (Gorishniy et al. 2021, arXiv:2106.11959), with a token that answers.

    Its owner draws the columns' vectors uniformly in ± 1/√width.
    """

    def __init__(self, features: int, outputs: int, width: int = 96, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(features, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(features, width).uniform_(-bound, bound))
        self.answer = nn.Parameter(torch.empty(1, 1, width).uniform_(-bound, bound))
        self.blocks = nn.Sequential(*[ColumnBlock(width, heads, first=place == 0) for place in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        columns = x[:, :, None] * self.weight + self.bias
        tokens = self.blocks(torch.cat([self.answer.expand(len(x), -1, -1), columns], 1))
        return self.head(F.relu(self.norm(tokens[:, 0])))


class ColumnBlock(nn.Module):
    """A pre-LN block with ReGLU, the first one without its first normalization."""

    def __init__(self, width: int, heads: int, first: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.Identity() if first else nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        hidden = 4 * width // 3
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(x)
        parts = [
            part(inner).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        ]
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        signal, gate = self.up(self.norm2(x)).chunk(2, -1)
        return x + self.down(signal * F.relu(gate))


class TableResNet(nn.Module):
    """The ResNet for tables of the same paper: BatchNorm, two linear layers and a skip in each block."""

    def __init__(self, features: int, outputs: int, width: int = 192, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(F.relu(self.norm(x)))


class CrossNetwork(nn.Module):
    """DCN v2 (Wang et al. 2020, arXiv:2008.13535): layers that multiply by the input, beside a deep network."""

    def __init__(self, features: int, outputs: int, width: int = 256, crosses: int = 3) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(features, features) for _ in range(crosses))
        self.deep = nn.Sequential(
            nn.Linear(features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        self.head = nn.Linear(features + width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for layer in self.crosses:
            crossed = x * layer(crossed) + crossed
        return self.head(torch.cat([crossed, self.deep(x)], 1))


class Highway(nn.Module):
    """A highway network (Srivastava et al. 2015, arXiv:1505.00387): gates carry the input past each layer."""

    def __init__(self, features: int, outputs: int, width: int = 128, layers: int = 10) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.transforms = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            carried = torch.sigmoid(gate(x) - 2)
            x = carried * F.relu(transform(x)) + (1 - carried) * x
        return self.head(x)


def _grid(size: int) -> Tensor:
    """Returns which pixels of a square image touch, [pixels, pixels]; each touches itself."""
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    return ((places[:, None] - places[None]).abs().amax(2) <= 1).float()


class PixelGraph(nn.Module):
    """A graph network over the pixels of an image [n, 1, size, size], each joined to those around it.

    The kind of a layer is "gcn" (Kipf & Welling 2016, arXiv:1609.02907), "gin" (Xu et al. 2018, arXiv:1810.00826) or
    "gat" (Veličković et al. 2017, arXiv:1710.10903). A pixel has its value and its place.
    """

    joined: Tensor
    places: Tensor

    def __init__(
        self, channels: int, outputs: int, size: int, of: str = "gcn", width: int = 96, layers: int = 4
    ) -> None:
        super().__init__()
        self.register_buffer("joined", _grid(size))
        line = torch.linspace(-1, 1, size)
        self.register_buffer("places", torch.cartesian_prod(line, line))
        sizes = [channels + 2, *[width] * layers]
        kind = {"gcn": GraphConvolution, "gin": GraphIsomorphism, "gat": GraphAttention}[of]
        self.layers = nn.ModuleList(kind(sizes[n], sizes[n + 1]) for n in range(layers))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        nodes = torch.cat([x.flatten(2).transpose(1, 2), self.places.expand(len(x), -1, -1)], 2)
        for layer in self.layers:
            nodes = layer(nodes, self.joined)
        return self.head(nodes.mean(1))


class GraphConvolution(nn.Module):
    """The mean over a node's neighbours in symmetric normalization, then a linear layer and ReLU."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, width)

    def forward(self, nodes: Tensor, joined: Tensor) -> Tensor:
        scale = joined.sum(1).rsqrt()
        return F.relu(self.linear((scale[:, None] * joined * scale) @ nodes))


class GraphIsomorphism(nn.Module):
    """The sum over a node and its neighbours, then two linear layers with BatchNorm between them."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.up, self.down = nn.Linear(before, width), nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, nodes: Tensor, joined: Tensor) -> Tensor:
        total = joined @ nodes + self.eps * nodes
        inner = self.norm(self.up(total).transpose(1, 2)).transpose(1, 2)
        return F.relu(self.down(F.relu(inner)))


class GraphAttention(nn.Module):
    """Four heads that attend to a node's neighbours by an additive score, then ELU and a skip."""

    def __init__(self, before: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.linear = nn.Linear(before, width, bias=False)
        self.source = nn.Parameter(torch.empty(heads, width // heads))
        self.target = nn.Parameter(torch.empty(heads, width // heads))
        self.skip = nn.Linear(before, width)
        nn.init.xavier_uniform_(self.source)
        nn.init.xavier_uniform_(self.target)

    def forward(self, nodes: Tensor, joined: Tensor) -> Tensor:
        values = self.linear(nodes).unflatten(2, (self.heads, -1))
        score = (values * self.source).sum(-1)[:, :, None] + (values * self.target).sum(-1)[:, None]
        score = F.leaky_relu(score, 0.2).masked_fill(joined[:, :, None] == 0, -math.inf)
        mixed = torch.einsum("nijh,njhd->nihd", score.softmax(2), values).flatten(2)
        return F.elu(mixed + self.skip(nodes))
