"""Orthogonal matrices, uniform over all of them: of a whole weight, or of a convolution's centre tap."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry


def haar(count: int, rows: int, columns: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns `count` Haar-distributed matrices [count, rows, columns] with orthonormal rows or columns.

    Whichever are fewer are orthonormal. QR of a Gaussian matrix with the signs of R's diagonal moved into Q
    (Mezzadri 2007, math-ph/0609050).
    """
    tall = torch.empty(count, max(rows, columns), min(rows, columns), dtype=dtype).normal_(generator=generator)
    q: Tensor
    q, r = torch.linalg.qr(tall)
    q *= r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return q if rows >= columns else q.mT


def orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with orthonormal rows or columns (whichever are fewer), times √max(rows, columns)·std.

    Saxe et al. 2014, arXiv:1312.6120.
    """
    count, rows, columns = geometry.blocks(tensor).shape
    q = haar(count, rows, columns, generator, tensor.dtype)
    geometry.scatter_(tensor, q.mul_(std * math.sqrt(max(rows, columns))))


def delta_orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills the centre tap of each kernel with an orthogonal matrix over the channels, the other taps with zeros.

    The matrix is scaled by √(max(rows, channels)·taps)·std, so that the root mean square of all entries is `std`.
    Without kernel axes this is `orthogonal_`. Xiao et al. 2018, arXiv:1806.05393.
    """
    tensor.zero_()
    orthogonal_(*geometry.centre(tensor), std * math.sqrt(geometry.taps(tensor)), generator)
