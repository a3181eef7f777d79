"""Independent entries: normal, uniform, truncated normal, sparse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import Geometry

_WITHIN = math.erf(math.sqrt(2))
"""Share of a normal that lies within two widths: 0.9545."""

_CUT_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / _WITHIN)
"""Standard deviation of a standard normal cut at ±2: 0.8796."""

CONNECTIONS = 15
"""Incoming weights of a unit of a sparse draw (Martens 2010)."""


def normal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with N(0, std²)."""
    tensor.normal_(0.0, std, generator=generator)


def uniform_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with U(−√3·std, √3·std)."""
    bound = math.sqrt(3.0) * std
    tensor.uniform_(-bound, bound, generator=generator)


def truncated_normal_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any shape with a normal cut at two of its widths, scaled so that the std is `std`.

    A uniform number is sent through the inverse of the cut normal's distribution function, in place: drawing again
    what falls outside would need room for two more tensors.
    """
    width = std / _CUT_STD
    tensor.uniform_(-_WITHIN, _WITHIN, generator=generator).erfinv_()
    tensor.mul_(math.sqrt(2.0) * width).clamp_(-2 * width, 2 * width)


def sparse_(tensor: Tensor, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills each output unit with 15 normal weights (all, where it has fewer inputs) at random places, else zeros.

    The weights are N(0, std²·columns/15), so that the root mean square of all entries is `std`.
    Martens 2010, "Deep learning via Hessian-free optimization".
    """
    blocks = torch.empty_like(geometry.blocks(tensor), memory_format=torch.contiguous_format)
    columns = blocks.shape[-1]
    count = min(CONNECTIONS, columns)
    places = blocks.uniform_(generator=generator).topk(count, dim=-1, sorted=False).indices
    weights = blocks.new_empty(places.shape).normal_(0.0, std * math.sqrt(columns / count), generator=generator)
    geometry.scatter_(tensor, blocks.zero_().scatter_(-1, places, weights))
