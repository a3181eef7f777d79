"""Drawing one tensor: a registry of functions of a tensor, its geometry, a std and a generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ArgumentError, did_you_mean
from .butterfly import butterfly_orthogonal_
from .filling import draw_into
from .geometry import Geometry
from .hadamard import zero_
from .identity import identity_
from .mimetic import mimetic_key_, mimetic_out_, mimetic_qkv_, mimetic_query_, mimetic_value_
from .mirrored import mirrored_, mirrored_columns_, mirrored_rows_
from .orthogonal import delta_orthogonal_, orthogonal_
from .random import normal_, sparse_, truncated_normal_, uniform_

Draw = Callable[[Tensor, Geometry, float, torch.Generator], None]

DRAWS: dict[str, Draw] = {
    "normal": normal_,
    "uniform": uniform_,
    "truncated_normal": truncated_normal_,
    "sparse": sparse_,
    "orthogonal": orthogonal_,
    "identity": identity_,
    "delta_orthogonal": delta_orthogonal_,
    "butterfly_orthogonal": butterfly_orthogonal_,
    "mirrored": mirrored_,
    "mirrored_rows": mirrored_rows_,
    "mirrored_columns": mirrored_columns_,
    "hadamard": zero_,
    "mimetic_query": mimetic_query_,
    "mimetic_key": mimetic_key_,
    "mimetic_value": mimetic_value_,
    "mimetic_out": mimetic_out_,
    "mimetic_qkv": mimetic_qkv_,
}
"""Distribution → the function that fills a tensor in place so that its entries have the given root mean square.

The mimetic ones take it as a plain factor. All of them fill contiguous float32 or float64 tensors that have entries
and lie on the generator's device; `fill_` makes them serve every other tensor.
"""

COSTLY = frozenset({
    "orthogonal",
    "delta_orthogonal",
    "butterfly_orthogonal",
    "mirrored",
    "mirrored_rows",
    "mirrored_columns",
    "mimetic_query",
    "mimetic_key",
    "mimetic_value",
    "mimetic_out",
    "mimetic_qkv",
})  # fmt: skip
"""Draws that cost much more than a pass over the memory, so that a search does well to remember them."""


INDEPENDENT = ("normal", "uniform", "truncated_normal")
"""Draws of entries that know of no other: they may be drawn in pieces, and of a complex tensor they fill both parts."""


def fill_(tensor: Tensor, distribution: str | Draw, geometry: Geometry, std: float, generator: torch.Generator) -> None:
    """Fills a tensor of any device, dtype and memory layout, in place and without gradient, as `draw_into` says.

    The draw is made where the generator is, so one on the CPU gives every device the same bits. Of a complex tensor
    independent entries are drawn for both parts, std/√2 each; the structured draws are real.

    Args:
        tensor: to fill.
        distribution: a name in `DRAWS`, or a function of their kind.
        geometry: the matrices in the tensor.
        std: root mean square of the entries drawn; a plain factor for the mimetic distributions.
        generator: of the random numbers, on the CPU or on a CUDA device.

    Raises:
        ArgumentError: an unknown distribution, a std that is no finite number ≥ 0, a tensor of integers,
            or a geometry that the distribution cannot fill.
    """
    if isinstance(distribution, str) and distribution not in DRAWS:
        raise ArgumentError(f"Unknown distribution {distribution!r}. {did_you_mean(distribution, DRAWS)}")
    if not (math.isfinite(std) and std >= 0):
        raise ArgumentError(f"The std of a draw is a finite number of at least 0; got {std}.")
    if tensor.is_complex() and distribution in INDEPENDENT:
        with torch.no_grad():
            tensor, std = torch.view_as_real(tensor), std / math.sqrt(2.0)
    draw = DRAWS[distribution] if isinstance(distribution, str) else distribution
    draw_into(tensor, lambda plain: draw(plain, geometry, std, generator), generator.device)
