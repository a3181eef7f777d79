"""The identity, as far as a matrix that is not square has one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry


def identity_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each matrix with √(max(rows, columns)·taps)·std times the identity, padded with zeros.

    Of a convolution the identity stands at the centre tap, in every group, as `torch.nn.init.dirac_` has it. With
    std = 1/√(max(rows, columns)·taps) as many inputs as there are outputs for pass unchanged.
    """
    centre, channels = geometry.centre(tensor)
    count, rows, columns = channels.blocks(centre).shape
    scale = std * math.sqrt(max(rows, columns) * geometry.taps(tensor))
    eye = torch.eye(rows, columns, dtype=tensor.dtype, device=tensor.device).mul_(scale)
    tensor.zero_()
    channels.scatter_(centre, eye.expand(count, rows, columns))
