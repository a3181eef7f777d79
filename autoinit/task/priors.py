"""The best constant of torch's classification losses with options, which tells where an output bias should start."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batches import Batch
from .losses import (
    IGNORED,
    VARIANCE_BATCHES,
    BestConstant,
    class_frequencies,
    classes,
    entropy,
    split,
    targets,
    variance,
)

FEWEST_BATCHES = 4
"""Batches whose losses tell by how much they differ."""


def constant_of(loss: Callable[..., Any] | None, output: Tensor | None, batches: Sequence[Batch]) -> BestConstant:
    """Returns the best constant predictor under a given loss of torch's; an empty one where the loss is none of them.

    Weighted cross-entropy counts each class as often as its weight says, and label smoothing shares a part of the
    counts out evenly. Binary cross-entropy has a frequency for each label by itself (Lin et al. 2017,
    arXiv:1708.02002, section 4.1), of which `pos_weight` counts the positives so many times.

    Args:
        loss: as it was given.
        output: a prediction; only its shape and dtype are asked for.
        batches: to learn from.
    """
    if output is None or not batches:
        return BestConstant()
    if type(loss) is nn.CrossEntropyLoss:
        return _of_classes(loss, output, batches)
    if loss is F.binary_cross_entropy_with_logits:
        return _of_labels(None, output, batches)
    if type(loss) is nn.BCEWithLogitsLoss and loss.weight is None:
        return _of_labels(loss, output, batches)
    return BestConstant()


def _of_classes(loss: nn.CrossEntropyLoss, output: Tensor, batches: Sequence[Batch]) -> BestConstant:
    found = classes(output, split(batches[0])[2])
    if found is None:
        return BestConstant()
    width, values = found[0], targets(batches)
    kept = [value[value != loss.ignore_index] for value in values]
    if any(bool(((value < 0) | (value >= width)).any()) for value in kept):
        return BestConstant()
    frequencies = class_frequencies([value[value != IGNORED] for value in kept], width)
    if not frequencies:
        return BestConstant()
    weights = [1.0] * width if loss.weight is None else loss.weight.double().tolist()
    even = loss.label_smoothing / width
    mass = [weight * ((1 - loss.label_smoothing) * p + even) for weight, p in zip(weights, frequencies, strict=True)]
    prior = tuple(part / sum(mass) for part in mass) if sum(mass) > 0 else ()
    counted = sum(weight * p for weight, p in zip(weights, frequencies, strict=True))
    if not prior or counted <= 0 or loss.reduction != "mean":
        return BestConstant(prior)
    reached = -sum(part * math.log(p) for part, p in zip(mass, prior, strict=True) if p > 0) / counted
    return BestConstant(prior, reached or None)


def _of_labels(loss: nn.BCEWithLogitsLoss | None, output: Tensor, batches: Sequence[Batch]) -> BestConstant:
    values = [value for value in targets(batches) if value.shape[1:] == output.shape[1:] and value.dim() > 0]
    if len(values) != len(batches) or any(bool(((value < 0) | (value > 1)).any()) for value in values):
        return BestConstant()
    axis = 1 if output.dim() in (2, 4, 5) else max(0, output.dim() - 1)  # [rows, labels], images, [rows, time, labels]
    values = [value.detach().cpu() for value in values]
    rows = [value.double().movedim(axis, -1).flatten(0, -2) if value.dim() > 1 else value.double()[:, None]
            for value in values]  # fmt: skip
    p = torch.cat(rows).mean(0)
    factor = torch.ones(()) if loss is None or loss.pos_weight is None else loss.pos_weight.detach().cpu().double()
    if factor.numel() not in (1, len(p)):
        return BestConstant()
    factor = factor.flatten()
    prior = factor * p / (factor * p + 1 - p)
    reached = -(torch.xlogy(factor * p, prior) + torch.xlogy(1 - p, 1 - prior)).mean().item()
    means = loss is None or loss.reduction == "mean"
    return BestConstant(tuple(prior.tolist()), (reached or None) if means else None, independent=True)


def batch_spread(known: BestConstant, batches: Sequence[Batch]) -> float | None:
    """Returns by how much the best constant's loss differs from batch to batch; None where that is unknown.

    It is the standard deviation of its logarithm: what a model's loss varies by that does not look at its input.

    Args:
        known: of all of them.
        batches: some are enough.
    """
    if known.loss is None or known.independent:
        return None
    losses = [_loss_on(known.label_prior, value) for value in targets(batches[:VARIANCE_BATCHES])]
    if len(losses) < FEWEST_BATCHES or min(losses) <= 0:
        return None
    return statistics.stdev(map(math.log, losses))


def _loss_on(prior: Sequence[float], target: Tensor) -> float:
    """Returns a constant's loss on a batch; a squared error is that of the batch's own mean."""
    if not prior:
        return variance([target.cpu()])
    found = class_frequencies([target], len(prior))
    return -sum(p * math.log(q) for p, q in zip(found, prior, strict=False) if p > 0 and q > 0)


def lowest_constant(classes: int, batches: Sequence[Batch]) -> float | None:
    """Returns the entropy of the labels of some batches, or the variance of their targets; None where it is 0.

    Args:
        classes: how many there are; 0 of a squared error.
        batches: of one loss.
    """
    values = [value.cpu() for value in targets(batches)]
    if not values or (not classes and len({tuple(value.shape[1:]) for value in values}) > 1):
        return None
    return (entropy(class_frequencies(values, classes)) if classes else variance(values)) or None
