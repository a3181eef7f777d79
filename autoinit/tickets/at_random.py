"""Masks at random, of one density or of given densities in each layer: what any ticket has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, did_you_mean
from ..seeds import seed_of_parameter
from ..text import few
from .ranking import Masks, Scope, best, chosen_counts

_NEAR = 0.005
"""By how much the sparsity that densities give may differ from the one that is asked for."""


def at_random(shapes: Mapping[str, Tensor], sparsity: float, *, scope: Scope, seed: int) -> tuple[Masks, Masks]:
    """Returns masks at random and the random scores that gave them.

    Args:
        shapes: the weights, of which only shape and device count.
        sparsity: share of all entries that is removed.
        scope: whether all layers share one draw ("global") or each has exactly the same density ("layer").
        seed: of the draw; each weight has a stream of its own.
    """
    scores = _scores(shapes, seed)
    return best(scores, sparsity, scope=scope), scores


def with_densities(shapes: Mapping[str, Tensor], counts: Mapping[str, int], *, seed: int) -> tuple[Masks, Masks]:
    """Returns masks at random that leave so many entries of each layer, and the scores that gave them."""
    scores = _scores(shapes, seed)
    return chosen_counts(scores, counts), scores


def counts_of(densities: Mapping[str, Any], sizes: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """Returns how many entries of each layer given densities leave.

    Args:
        densities: share of the entries that are left, from 0 to 1, by the weight's name.
        sizes: entries of each weight that may be thinned out.
        sparsity: what is asked for, which the densities have to give.

    Raises:
        ArgumentError: names differ from the model's, a density is out of range, or they give another sparsity.
    """
    if differ := sorted(densities.keys() ^ sizes.keys()):
        raise ArgumentError(
            f"densities has other weights than the model: {few(differ)} differ. {did_you_mean(differ[0], sizes)}"
        )
    for name, density in densities.items():
        if isinstance(density, bool) or not isinstance(density, Real) or not 0.0 <= float(density) <= 1.0:
            raise ArgumentError(f"The density of {name} is {density!r}, but a share of what is left is from 0 to 1.")
    counts = {name: round(float(densities[name]) * size) for name, size in sizes.items()}
    given = 1 - sum(counts.values()) / sum(sizes.values())
    if not math.isclose(given, sparsity, abs_tol=_NEAR):
        raise ArgumentError(f"sparsity is {sparsity!r}, but these densities give {given:.4g}. Pass that.")
    return counts


def _scores(shapes: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Returns a uniform random number for each entry, drawn on the host so that no device changes a mask."""
    scores = {}
    for name, weight in shapes.items():
        generator = torch.Generator().manual_seed(seed_of_parameter(seed, f"{name} mask"))
        scores[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
    return scores
