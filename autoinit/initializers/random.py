"""Independent entries: normal, uniform, truncated normal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .geometry import Geometry

_CUT_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
"""Standard deviation of a standard normal cut at ±2: 0.8796."""


def normal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with N(0, std²)."""
    tensor.normal_(0.0, std, generator=generator)


def uniform_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with U(−√3·std, √3·std)."""
    bound = math.sqrt(3.0) * std
    tensor.uniform_(-bound, bound, generator=generator)


def truncated_normal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with a normal cut at two of its widths, scaled so that the std is `std`."""
    width = std / _CUT_STD
    nn.init.trunc_normal_(tensor, 0.0, width, -2 * width, 2 * width, generator=generator)
