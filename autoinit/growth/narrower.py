"""Narrower: some of a trained network's units, the same ones wherever a stream passes (weight selection)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .mapping import Axis, Choice, Factor


def evenly(factor: Factor) -> Tensor:
    """Returns unit u' → ⌊u'·before / after⌋: units at equal distances (Xu et al. 2024, arXiv:2311.18823)."""
    return torch.arange(factor.after) * factor.before // factor.after


def from_the_first(factor: Factor) -> Tensor:
    """Returns the first units (Xu et al. 2024, arXiv:2311.18823)."""
    return torch.arange(factor.after)


def largest(tensors: Iterable[tuple[Tensor, Sequence[Axis]]]) -> Choice:
    """Returns the choice of the units whose weights are largest, in the order in which they stand.

    A unit's size is Σ W² over all the weights that compute it and that read it, each tensor divided by its own mean
    square, so that one of large values does not decide alone.

    Args:
        tensors: the source's weights, with what their axes count.
    """
    sizes: dict[Factor, Tensor] = {}
    for tensor, axes in tensors:
        squares = tensor.detach().to(device="cpu", dtype=torch.float64) ** 2
        squares = squares / squares.mean().clamp(min=torch.finfo(torch.float64).tiny)
        for dimension, axis in enumerate(axes):
            if axis.kind in ("in", "out"):
                others = [other for other in range(squares.dim()) if other != dimension]
                _add(sizes, axis, squares.sum(others) if others else squares)

    def choose(factor: Factor) -> Tensor:
        if factor not in sizes:
            return from_the_first(factor)
        return sizes[factor].argsort(descending=True, stable=True)[: factor.after].sort().values

    return choose


def _add(sizes: dict[Factor, Tensor], axis: Axis, squares: Tensor) -> None:
    """Adds what an axis says of each factor's units."""
    start = 0
    for segment in axis.segments:
        part = squares[start : start + segment.before].reshape([factor.before for factor in segment.factors])
        start += segment.before
        for place, factor in enumerate(segment.factors):
            if factor.before != factor.after:
                others = [other for other in range(part.dim()) if other != place]
                seen = part.sum(others) if others else part
                sizes[factor] = sizes[factor] + seen if factor in sizes else seen
