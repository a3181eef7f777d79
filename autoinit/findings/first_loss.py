"""A first loss far above that of the best constant guess, and gradients that pull against each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

import torch

from ..graph import Graph
from ..probing.signals import Signals, agreement
from ..task.batches import move, tensors
from ..task.losses import split, targets
from ..task.task import Task
from ..text import number
from .along_depth import forward, in_order
from .finding import Finding
from .remedies import smaller_head, suited

HIGH_LOSS = 1.5
"""Times the best constant predictor's loss: the first steps only unlearn the initial guess."""
VERY_HIGH_LOSS = 10.0
"""Times the best constant predictor's loss: the search refuses such a start, too."""
WIDE = 20.0
"""Spread of the first layer's output: of inputs with variance 1, PyTorch's default makes 0.6 and he_normal 1.4."""
LARGE_INPUT = 5.0
"""Root mean square of inputs that nobody has scaled: bytes, years, prices."""
DISAGREEMENT = -0.1
"""Cosine of two half-batch gradients: pure noise lies around 0; below this the halves pull against each other."""


def first_loss(task: Task, graph: Graph, signals: Signals) -> Iterator[Finding]:
    """Yields a loss that starts far above the best constant guess's, with what of data and weights makes it so."""
    if task.reference is None or signals.loss <= HIGH_LOSS * _reference(task, task.reference):
        return
    times = signals.loss / task.reference
    remedies = [*_off_centre(task), *_unscaled(task, graph, signals)]
    if not remedies and forward(task, graph, signals):
        remedies = [suited(task.model, graph)]
    if not remedies:
        remedies = [smaller_head(task.model, graph)]
        remedies += ["for a regression, scale the targets"] if task.loss_name == "mse" else []
    yield Finding(
        "error" if times > VERY_HIGH_LOSS else "warning",
        f"the loss starts at {number(signals.loss)}, {number(times, 2)} times the {number(task.reference)} of the best "
        "constant guess",
        "; ".join(remedies),
    )


def halves(task: Task, signals: Signals) -> Iterator[Finding]:
    """Yields halves of batches whose gradients point against each other.

    Those of one batch do so by chance, where classes differ in number; then the other batches that were read are asked.
    """
    if signals.agreement is None or signals.agreement >= DISAGREEMENT:
        return
    cosine = statistics.median([signals.agreement, *_of_others(task)])
    if cosine < DISAGREEMENT:
        yield Finding(
            "warning",
            f"the two halves of the batch pull in opposite directions (cosine {number(cosine, 2)})",
            "early steps are mostly noise: use larger batches, or a start whose units respond to the input",
        )


def _of_others(task: Task) -> Iterator[float]:
    """Yields the agreement of the halves of each batch but the first."""
    with task.preserved() as snapshot:
        task.model.train()
        for batch in task.train[1:]:
            cosine = agreement(task, move(batch, task.device))
            snapshot.rewind()
            if cosine is not None:
                yield cosine


def _reference(task: Task, reference: float) -> float:
    """Returns the best constant's loss as it may be on other rows: the entropy of few labels is too small.

    By (classes − 1) / (2 labels) on average (Miller 1955); at the most it is that of a uniform guess.
    """
    if not task.label_prior:
        return reference
    labels = sum(target.numel() for target in targets(task.train))
    classes = len(task.label_prior)
    if task.independent_labels:  # each is there or not: two classes, whatever their number
        classes, labels = 2, labels // classes
    return min(math.log(classes), reference + (classes - 1) / (2 * labels))


def _off_centre(task: Task) -> Iterator[str]:
    """Targets far from zero: no output starts there, and no draw of weights brings it there."""
    if task.loss_name != "mse" or task.reference is None:
        return
    mean = float(torch.cat([value.detach().cpu().double().flatten() for value in targets(task.train)]).mean())
    if abs(mean) > math.sqrt(task.reference):
        yield f"subtract the targets' mean ({number(mean)}), or set the output bias to it"


def _unscaled(task: Task, graph: Graph, signals: Signals) -> Iterator[str]:
    """Large inputs make large outputs whatever the weights; large weights on common inputs are another matter."""
    first = next(iter(in_order(graph, signals, lambda s: s.forward_std)), None)
    if first is None or (first.forward_std or 0.0) <= WIDE:
        return
    arguments, keywords, target = split(task.train[0])
    inputs = [x for x in tensors([*arguments, *keywords.values()]) if x.is_floating_point() and x is not target]
    if not inputs:
        return
    values = torch.cat([x.detach().double().flatten() for x in inputs])
    if values.square().mean().sqrt() > LARGE_INPUT:
        mean, std = number(values.mean().item()), number(values.std().item())
        yield f"inputs have mean {mean} and std {std}: scale them to mean 0 and variance 1"
