"""Random orthogonal matrices in O(n² log n): gates on small blocks, wired as a butterfly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry
from .orthogonal import haar

GATE = 32
"""Coordinates that one gate mixes: few enough to be drawn at no cost, enough for the speed of a matrix product."""

_AT_ONCE = 512
"""Vectors sent through the circuit together: fewer stay nearer to the processor, more keep several threads busy."""

Turns = list[Tensor]
"""The gates of one layer, [gates, size, size], from the first coordinate on; one tensor for each size of gate."""


def butterfly_orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with orthonormal rows or columns (whichever are fewer), times √max(rows, columns)·std.

    Unit vectors of n = max(rows, columns) coordinates are sent through a shallow circuit, like those of quantum
    computers: a layer cuts the coordinates into blocks of at most 32 and turns each block by a random gate of its
    own; then the coordinates are shuffled, so that the next layer mixes what was apart. ⌈log₃₂ n⌉ layers make a
    butterfly, through which every input reaches every output; after two butterflies the entries look as if drawn
    uniformly (kurtosis within 0.05 of Haar's). That takes O(n² log n), where QR takes O(n³).

    A gate is Haar, as a brick wall of plane rotations within its block would become; turning planes one by one
    gives the same and runs at the speed of the memory, not of a matrix product. Any n will do: the sizes of the
    blocks then differ by one. Of a matrix that is not square only min(rows, columns) vectors are computed. Every
    layer is orthogonal, so the result is, up to rounding. Up to 32 coordinates one gate is all, and it is Haar.
    """
    found = geometry.blocks(tensor)  # most often a view: the vectors are then written where they belong
    count, rows, columns = found.shape
    size = max(rows, columns)
    if size <= GATE:
        found = haar(count, rows, columns, generator, tensor.dtype)
    else:
        for block in found:
            _run(_circuit(size, tensor.dtype, generator), block if rows >= columns else block.T)
    geometry.scatter_(tensor, found.mul_(std * math.sqrt(size)))


def _circuit(size: int, dtype: torch.dtype, generator: torch.Generator) -> list[Turns]:
    """Returns the gates of two butterflies on `size` coordinates."""
    depth, reach = 1, GATE
    while reach < size:
        depth, reach = depth + 1, reach * GATE
    count = -(-size // GATE)
    smaller, larger = size // count, size % count
    kinds = [(larger, smaller + 1), (count - larger, smaller)]
    # Drawn in float64, so that the gates' own errors do not add to those of the products.
    return [
        [haar(number, width, width, generator, torch.float64).to(dtype) for number, width in kinds if number]
        for _ in range(2 * depth)
    ]


def _run(circuit: list[Turns], out: Tensor) -> None:
    """Writes into the columns of `out` [size, vectors] what the circuit makes of as many unit vectors."""
    shuffle = _shuffle(circuit[0])
    for start in range(0, out.shape[1], _AT_ONCE):
        columns = out[:, start : start + _AT_ONCE]
        here, there = out.new_zeros(columns.shape), out.new_empty(columns.shape)
        # In the shuffled order the unit vectors are spread evenly over the blocks.
        here[shuffle[start : start + columns.shape[1]], torch.arange(columns.shape[1], device=out.device)] = 1.0
        for layer in circuit[:-1]:
            _turn(layer, here, there)
            torch.index_select(there, 0, shuffle, out=here)
        _turn(circuit[-1], here, there)
        columns.copy_(there)


def _turn(layer: Turns, vectors: Tensor, out: Tensor) -> None:
    """Writes into `out` the vectors [size, count] with every block of coordinates turned by its gate."""
    start = 0
    for gates in layer:
        count, width, _ = gates.shape
        blocks = (slice(start, start + count * width), (count, width, vectors.shape[1]))
        torch.bmm(gates, vectors[blocks[0]].view(blocks[1]), out=out[blocks[0]].view(blocks[1]))
        start += count * width


def _shuffle(layer: Turns) -> Tensor:
    """Returns the order that takes the first coordinate of every block, then the second of every block, and so on."""
    places = [torch.arange(gates.shape[1], device=gates.device).repeat(gates.shape[0]) for gates in layer]
    return torch.cat(places).argsort(stable=True)
