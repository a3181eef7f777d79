"""Matrices with a structure: orthogonal and identity, for each block of the geometry."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry


def orthogonal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with orthonormal rows or columns (whichever are fewer), times √max(rows, columns)·std.

    Haar-distributed: QR of a Gaussian matrix with the signs of R's diagonal moved into Q
    (Saxe et al. 2014, arXiv:1312.6120; Mezzadri 2007, math-ph/0609050).
    """
    count, rows, columns = geometry.blocks(tensor).shape
    tall = (count, max(rows, columns), min(rows, columns))
    q, r = torch.linalg.qr(torch.empty(tall, dtype=tensor.dtype).normal_(generator=generator))
    q *= r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    if rows < columns:
        q = q.mT
    geometry.scatter_(tensor, q * (std * math.sqrt(max(rows, columns))))


def identity_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with √max(rows, columns)·std times the identity, padded with zeros where not square."""
    count, rows, columns = geometry.blocks(tensor).shape
    eye = torch.eye(rows, columns, dtype=tensor.dtype) * (std * math.sqrt(max(rows, columns)))
    geometry.scatter_(tensor, eye.expand(count, rows, columns))
