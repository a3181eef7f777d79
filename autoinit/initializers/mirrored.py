"""Looks-linear: mirrored halves, by which a network of ReLUs starts as a linear map."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry
from .orthogonal import haar


def mirrored_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with [[A, −A], [−A, A]], A orthogonal: a layer between two layers of ReLUs.

    A has half the rows and half the columns, rounded up; of an odd number the last mirrored row or column is cut
    off. It is scaled by √(max of both halves · taps)·std, and stands at the centre tap of a convolution. Then
    the layers after concatenated ReLUs, φ(x) − φ(−x) = x, compute products of orthogonal matrices.
    Balduzzi et al. 2017, arXiv:1702.08591.
    """
    _mirror(tensor, geometry, std, generator, by_rows=True, by_columns=True)


def mirrored_rows_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with [A; −A], A orthogonal: the first layer of a looks-linear network (see `mirrored_`)."""
    _mirror(tensor, geometry, std, generator, by_rows=True, by_columns=False)


def mirrored_columns_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with [A, −A], A orthogonal: the last layer of a looks-linear network (see `mirrored_`)."""
    _mirror(tensor, geometry, std, generator, by_rows=False, by_columns=True)


def _mirror(
    tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator, *, by_rows: bool, by_columns: bool
) -> None:
    centre, channels = geometry.centre(tensor)
    count, rows, columns = channels.blocks(centre).shape
    height = -(-rows // 2) if by_rows else rows
    width = -(-columns // 2) if by_columns else columns
    part = haar(count, height, width, generator, tensor.dtype)
    part.mul_(std * math.sqrt(max(height, width) * geometry.taps(tensor)))
    if by_columns:
        part = torch.cat((part, -part), dim=2)[..., :columns]
    if by_rows:
        part = torch.cat((part, -part), dim=1)[:, :rows]
    tensor.zero_()
    channels.scatter_(centre, part)
