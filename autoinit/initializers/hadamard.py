"""ZerO: a deterministic start from identities and Hadamard matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry
from .identity import identity_


def zero_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with a partial identity, or, where it has more rows than columns, with Hadamard signs.

    Rows ≤ columns: the identity as in `identity_`. Rows > columns: the first rows and columns of a Hadamard
    matrix, every entry ±std·√taps, so that outputs which no input reaches still differ from each other. Of a
    convolution both stand at the centre tap. With std = 1/√(max(rows, columns)·taps) this is ZerO for powers of
    two; for others the paper's Hadamard entries are smaller, 1/√(next power of two).
    Zhao, Schäfer & Anandkumar 2021, arXiv:2110.12661.
    """
    centre, channels = geometry.centre(tensor)
    count, rows, columns = channels.blocks(centre).shape
    if rows <= columns:
        identity_(tensor, geometry, std, generator)
        return
    signs = _signs(rows, columns, tensor).mul_(std * math.sqrt(geometry.taps(tensor)))
    tensor.zero_()
    channels.scatter_(centre, signs.expand(count, rows, columns))


def _signs(rows: int, columns: int, like: Tensor) -> Tensor:
    """Returns the first rows and columns of the Hadamard matrix whose side is a power of two (Sylvester's).

    Of the device and dtype of another tensor.
    """
    signs = like.new_ones(1, 1)
    while len(signs) < rows:
        upper = torch.cat((signs, signs), dim=1)[:, :columns]
        lower = torch.cat((signs, -signs), dim=1)[:, :columns]
        signs = torch.cat((upper, lower))
    return signs[:rows].clone()
