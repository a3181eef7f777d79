"""Making fills: what one parameter gets, with the geometry of its layer."""

from __future__ import annotations

from typing import Any

from .formulas import Distribution
from .graph import Layer
from .plan import Fill


def make(layer: Layer, distribution: Distribution, reason: str, **rest: Any) -> Fill:
    """Returns the fill of a layer that is drawn, or rescaled where that is kept; `rest` are more fields."""
    return Fill(
        name=layer.name,
        shape=layer.shape,
        role=layer.role,
        distribution=distribution,
        out_axes=layer.out_axes,
        in_axes=layer.in_axes,
        groups=layer.groups,
        slices=layer.slices,
        kernel_axes=layer.kernel_axes,
        heads=max(1, layer.heads),
        reason=reason,
        **rest,
    )


def kept(layer: Layer, reason: str) -> Fill:
    """Returns the fill of a layer that stays as it is."""
    return make(layer, "keep", reason)


def constant(layer: Layer, values: tuple[float, ...], reason: str) -> Fill:
    """Returns the fill of a layer that is set: to one value, one per slice, or one per entry."""
    return make(layer, "constant", reason, std=0.0, values=values)
