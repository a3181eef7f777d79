"""Scores become masks: the best entries stay, of all layers together or of each by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ArgumentError, ModelError
from ..text import few

Scope = Literal["global", "layer"]
Masks = dict[str, Tensor]


def check_sparsity(sparsity: Any, sizes: Mapping[str, int]) -> None:
    """Raises ArgumentError where a sparsity is out of range, or leaves less than one weight to each layer."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real) or not 0.0 < float(sparsity) < 1.0:
        raise ArgumentError(
            f"sparsity is {sparsity!r}, but the share of the weights that is removed lies between 0 and 1: 0.8 leaves "
            "every fifth."
        )
    total = sum(sizes.values())
    if kept_of(total, float(sparsity)) < len(sizes):
        raise ArgumentError(
            f"sparsity is {sparsity!r}, which leaves {kept_of(total, float(sparsity))} of {total} weights to "
            f"{len(sizes)} layers, so that one would be empty. The largest possible here is "
            f"{largest(total, len(sizes))}."
        )


def largest(total: int, kept: int) -> str:
    """Returns the sparsity that leaves so many weights, as digits, rounded down so that it does leave them."""
    digits = max(4, len(str(total)))
    return f"{math.floor((1 - kept / total) * 10**digits) / 10**digits:.{digits}g}"


def kept_of(total: int, sparsity: float) -> int:
    """Returns how many of some weights are left."""
    return round((1 - sparsity) * total)


def best(scores: Mapping[str, Tensor], sparsity: float, *, scope: Scope = "global") -> Masks:
    """Returns masks that leave the entries with the highest scores, exactly as many as a sparsity asks for.

    Args:
        scores: of each weight, in its shape; −inf for what has been removed already.
        sparsity: share of all entries that is removed.
        scope: whether all layers are ranked together ("global") or each by itself ("layer"), where every layer has
            the same density and at least one entry.

    Raises:
        ModelError: a score is NaN or +inf.
    """
    for name, score in scores.items():
        if bool((score.isnan() | (score == math.inf)).any()):
            raise ModelError(
                f"The scores of {name} are not finite, so that nothing can be ranked. Look for weights, data or a loss "
                "that are not finite (autoinit.diagnose), or for a learning rate at which training diverges."
            )
    if scope == "layer":
        return {name: _top(score, max(1, kept_of(score.numel(), sparsity))) for name, score in scores.items()}
    together = torch.cat([score.flatten() for score in scores.values()])
    return _split(_top(together, kept_of(together.numel(), sparsity)), scores)


def chosen_counts(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> Masks:
    """Returns masks that leave so many entries of each layer, those with the highest scores."""
    return {name: _top(score, counts[name]) for name, score in scores.items()}


def _top(score: Tensor, count: int) -> Tensor:
    """Returns where the highest scores are, exactly as many as asked for, also where some are equal."""
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[torch.topk(score.flatten(), count, sorted=False).indices] = True
    return mask.reshape(score.shape)


def _split(flat: Tensor, like: Mapping[str, Tensor]) -> Masks:
    parts = torch.split(flat, [score.numel() for score in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def collapse(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns a sentence about layers that have lost all their weights; none where no layer has.

    It tells the largest sparsity at which the same scores, ranked once, would leave something of every layer.
    """
    empty = [name for name, mask in masks.items() if not bool(mask.any())]
    if not empty:
        return ()
    lowest = min(float(score.max()) for score in scores.values())
    total = sum(score.numel() for score in scores.values())
    needed = sum(int((score >= lowest).sum()) for score in scores.values())
    return (
        f"Layer collapse: {few(empty, 6)} {'has' if len(empty) == 1 else 'have'} lost all weights, so that nothing "
        f"passes there. These scores leave something of every layer up to a sparsity of {largest(total, needed)}; "
        "method='synflow' or scope='layer' goes further.",
    )
