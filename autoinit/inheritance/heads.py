"""Heads in closed form: what the features of a body say of the targets, before any training."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ..errors import DataError
from ..task.batches import Batch
from ..task.losses import IGNORED
from ..text import few, number
from .discriminant import discriminant
from .given import Given
from .head_inputs import HeadInputs, head_inputs
from .ridge import ridge


def class_means(model: nn.Module, batches: Iterable[Batch], head: str) -> Given:
    """Returns a head of a classifier from the means of each class's features, in closed form; nothing is changed.

    With μ_c the mean of class c and μ that of all, the scores are those of linear discriminant analysis (Fisher 1936)
    with a shrunk covariance Σ inside of classes (Friedman 1989): w_c = f Σ⁻¹ (μ_c − μ) and
    b_c = −½ w_c·(μ_c + μ) + log π_c, with π_c the share of class c. How far Σ is shrunk and the factor f, by which the
    softmax is as sure as it is right, have the smallest cross-entropy on rows that the rest was not made of, a fifth
    at a time.

    The features are those of evaluation mode. Training with normalization by each batch's own statistics gives others,
    where the new data are unlike the old; keep such normalizations in evaluation mode at first. The body's learning
    rate is to be small: a step that would teach a head of zeros moves features away from what this one knows.

    Args:
        model: whose head it is; what it does after the head must leave the largest score the largest.
        batches: (inputs, labels) each, or a mapping with labels; whole numbers, of which −100 is left out.
        head: path of a linear layer with an output for each class, or with one for two classes.

    Returns:
        Weight and bias of the head. A class without rows has a weight of zeros and the bias of a class in the middle of
        all. A head without bias gets the weights alone.

    Raises:
        ArgumentError: there is no such layer.
        ModelError: the layer shares its weight or is not called once, or the model fails on a batch.
        DataError: there is no batch, labels are no classes of the head, or features are not finite.
    """
    inputs = head_inputs(model, batches, head)
    features, labels, classes = _classes(inputs, head)
    found = discriminant(features, labels, classes)
    weight, bias = found.weight, found.bias
    absent = [str(label) for label in range(classes) if not bool((labels == label).any())]
    notes = [f"There is no row of {few(absent, 8)}: of such classes the head's weights are zero."] if absent else []
    if len(inputs.names) == 1:
        notes.append(f"{head or 'The head'} has no bias, so that the shares of the classes are left out.")
    if inputs.layer.out_features == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    why = (
        f"class means of {len(features)} rows, covariance shrunk by {number(found.share)}, scores times "
        f"{number(found.factor)}: {found.right:.0%} right on rows left out, cross-entropy {number(found.loss)}"
    )
    return _given(inputs, weight, bias, why, notes)


def least_squares(model: nn.Module, batches: Iterable[Batch], head: str) -> Given:
    """Returns a head of a regression by least squares on its features, in closed form; nothing is changed.

    The weights are those of ridge regression (Hoerl & Kennard 1970), W = (XᵀX + λI)⁻¹ XᵀY on centred features and
    targets, the bias takes up both means. λ has the smallest error by generalized cross-validation (Golub, Heath &
    Wahba 1979), one for all outputs.

    Args:
        model: whose head it is; it must give the head's outputs as they are.
        batches: (inputs, targets) each, with as many numbers for each row as the head has outputs.
        head: path of a linear layer.

    Returns:
        Weight and bias of the head; a head without bias is fitted through zero.

    Raises:
        ArgumentError: there is no such layer.
        ModelError: the layer shares its weight or is not called once, or the model fails on a batch.
        DataError: there is no batch, targets are of another number or not finite, or features are not finite.
    """
    inputs = head_inputs(model, batches, head)
    targets = inputs.targets.double().reshape(len(inputs.features), -1)
    if targets.shape[1] != inputs.layer.out_features:
        raise DataError(
            f"{head or 'The head'} has {inputs.layer.out_features} outputs, and rows have {targets.shape[1]} targets. "
            "Each output needs its own number; for labels of classes use class means."
        )
    if not bool(targets.isfinite().all()):
        raise DataError("Some targets are not finite.")
    with_bias = len(inputs.names) == 2
    fitted = ridge(inputs.features, targets, centred=with_bias)
    why = f"least squares on {len(targets)} rows, ridge {number(fitted.ridge)}, explains {number(fitted.explained)}"
    return _given(inputs, fitted.weight, fitted.bias, f"{why} of the variance", [])


def _given(inputs: HeadInputs, weight: Tensor, bias: Tensor, why: str, notes: list[str]) -> Given:
    values = {
        name: value.to(inputs.layer.weight.device, inputs.layer.weight.dtype)
        for name, value in zip(inputs.names, (weight, bias), strict=False)  # a head may have no bias
    }
    return Given(values, dict.fromkeys(values, why), tuple(notes))


def _classes(inputs: HeadInputs, head: str) -> tuple[Tensor, Tensor, int]:
    """Returns features, labels and the number of classes, without the rows that a loss leaves out."""
    labels, outputs = inputs.targets, inputs.layer.out_features
    if labels.is_floating_point() or labels.is_complex() or labels.dim() > 1:
        raise DataError(
            f"Class means need a whole number for each row, its class. Got targets of shape {list(labels.shape)} and "
            f"{labels.dtype}. For numbers to be predicted use least squares."
        )
    classes = max(2, outputs)
    kept = labels != IGNORED
    found = labels[kept].long()
    wrong = found[(found < 0) | (found >= classes)]
    if len(wrong):
        raise DataError(
            f"{head or 'The head'} has {outputs} outputs, for labels from 0 to {classes - 1}. Got {int(wrong[0])}."
        )
    if not len(found):
        raise DataError(f"No row has a label other than {IGNORED}.")
    return inputs.features[kept], found, classes
