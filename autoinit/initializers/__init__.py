"""Drawing one tensor: a registry of functions of a tensor, its geometry, a std and a generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .geometry import Geometry
from .random import normal_, truncated_normal_, uniform_
from .structured import identity_, orthogonal_

Draw = Callable[[Tensor, Geometry, float, torch.Generator], None]

DRAWS: dict[str, Draw] = {
    "normal": normal_,
    "uniform": uniform_,
    "truncated_normal": truncated_normal_,
    "orthogonal": orthogonal_,
    "identity": identity_,
}
"""Distribution → the function that fills a tensor in place so that its entries have the given std."""

COSTLY = frozenset({"orthogonal"})
"""Draws that cost much more than a pass over the memory, so that a search does well to remember them."""

__all__ = ["COSTLY", "DRAWS", "Draw", "Geometry"]
