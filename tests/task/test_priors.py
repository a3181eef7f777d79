"""An output bias at the prior of a loss is the best constant under that very loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.task.losses import BestConstant
from autoinit.task.priors import batch_spread, constant_of, lowest_constant
from autoinit.task.task import make_task

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(600, 7, generator=GENERATOR)
CLASSES = torch.multinomial(torch.tensor([0.7, 0.25, 0.05]), 600, replacement=True, generator=GENERATOR)
LABELS = (torch.rand(600, 3, generator=GENERATOR) < torch.tensor([0.5, 0.1, 0.01])).float()
WEIGHTS = torch.tensor([1.0, 3.0, 9.0])

LOSSES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "weighted": (nn.CrossEntropyLoss(weight=WEIGHTS), CLASSES),
    "smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), CLASSES),
    "weighted and smoothed": (nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.3), CLASSES),
    "another class ignored": (nn.CrossEntropyLoss(ignore_index=0), CLASSES),
    "binary": (nn.BCEWithLogitsLoss(), LABELS),
    "binary function": (F.binary_cross_entropy_with_logits, LABELS),
    "binary with weights": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 5.0, 1.0])), LABELS),
    "one label": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(4.0)), LABELS[:, 1:2]),
    "soft labels": (nn.BCEWithLogitsLoss(), 0.1 + 0.8 * LABELS),
}


def found_by_descent(loss: Callable[..., Tensor], target: Tensor) -> tuple[Tensor, float]:
    """The best constant logits and what they reach, without a formula."""
    width = target.shape[1] if target.is_floating_point() else 3
    logits = torch.zeros(width, dtype=torch.float64, requires_grad=True)
    loss = loss.double() if isinstance(loss, nn.Module) else loss
    target = target.double() if target.is_floating_point() else target
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits.expand(len(target), -1), target)
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach(), closure().item()


@pytest.mark.parametrize("name", LOSSES)
def test_the_bias_and_the_loss_that_it_reaches_are_those_that_descent_finds(name: str) -> None:
    loss, target = LOSSES[name]
    width = target.shape[1] if target.is_floating_point() else 3
    wanted, reached = found_by_descent(loss, target)
    batches = [(X[at : at + 100], target[at : at + 100]) for at in range(0, 600, 100)]
    known = constant_of(loss.float() if isinstance(loss, nn.Module) else loss, torch.empty(100, width), batches)
    assert known.loss == pytest.approx(reached, rel=1e-5)
    model = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, width))
    autoinit.apply_(model, "label_prior", batches, loss=loss)
    bias = model[2].bias.detach().double()
    if known.independent:
        assert torch.allclose(bias, wanted, atol=1e-3)
    else:
        seen = wanted > -8  # a class that never counts has no best logit
        assert torch.allclose((bias - bias[2])[seen], (wanted - wanted[2])[seen], atol=1e-3)


def test_a_label_that_is_never_or_always_there_has_a_finite_bias() -> None:
    target = torch.tensor([[0.0, 1.0]]).expand(64, 2)
    model = nn.Sequential(nn.Linear(7, 2))
    plan = autoinit.apply_(model, "label_prior", [(X[:64], target)] * 2, loss=nn.BCEWithLogitsLoss())
    assert plan["0.bias"].values == pytest.approx((-math.log(9999), math.log(9999)))
    assert plan["0.bias"].reason.startswith("log odds of each label")


def test_maps_have_their_labels_on_the_channel_axis() -> None:
    masks = torch.zeros(8, 2, 4, 4)
    masks[:, 0, 0] = 1.0
    known = constant_of(nn.BCEWithLogitsLoss(), torch.empty(8, 2, 4, 4), [(masks, masks)])
    assert known.label_prior == (0.25, 0.0)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.BCEWithLogitsLoss(weight=torch.ones(3)), LABELS),
        (nn.L1Loss(), LABELS),
        (None, LABELS),
        (nn.BCEWithLogitsLoss(), LABELS + 2.0),
        (nn.BCEWithLogitsLoss(), LABELS[:, :2]),
        (nn.CrossEntropyLoss(weight=WEIGHTS), CLASSES + 7),
        (nn.CrossEntropyLoss(weight=torch.zeros(3)), CLASSES),
        (nn.CrossEntropyLoss(weight=WEIGHTS), LABELS),
    ],
)
def test_of_other_losses_and_targets_nothing_is_claimed(loss: Any, target: Tensor) -> None:
    known = constant_of(loss, torch.empty(100, 3), [(X[:100], target[:100])])
    assert known == BestConstant()


# How much a constant's loss differs from batch to batch, and the lowest that one can have


def batches(target: Tensor, rows: int = 20) -> list[tuple[Tensor, Tensor]]:
    return list(zip(X.split(rows), target.split(rows), strict=True))


def test_the_spread_is_that_of_the_constants_own_losses() -> None:
    prior = (0.7, 0.25, 0.05)
    known = BestConstant(prior, 1.0)
    logits = torch.tensor(prior).log()
    losses = [F.cross_entropy(logits.expand(len(y), 3), y).log() for _, y in batches(CLASSES)]
    assert batch_spread(known, batches(CLASSES)) == pytest.approx(float(torch.stack(losses).std()), rel=1e-4)


def test_of_a_squared_error_it_is_near_what_normal_targets_have() -> None:
    target = torch.randn(600, 1, generator=torch.Generator().manual_seed(1))
    found = batch_spread(BestConstant(loss=1.0), batches(target, 20))
    assert found == pytest.approx(math.sqrt(2 / 20), rel=0.35)


def test_nothing_is_said_of_few_batches_of_losses_of_zero_or_of_unknown_ones() -> None:
    assert batch_spread(BestConstant((0.7, 0.25, 0.05), 1.0), batches(CLASSES)[:3]) is None
    assert batch_spread(BestConstant(loss=1.0), batches(torch.ones(600, 1))) is None
    assert batch_spread(BestConstant(), batches(CLASSES)) is None
    assert batch_spread(BestConstant((0.5, 0.1), 1.0, independent=True), batches(LABELS)) is None


def test_no_constant_has_a_lower_loss_than_the_lowest() -> None:
    some = batches(CLASSES)[:4]
    labels = torch.cat([y for _, y in some])
    found = lowest_constant(3, some)
    assert found is not None
    own = torch.bincount(labels, minlength=3) / len(labels)
    assert found == pytest.approx(float(-(own * own.log()).nansum()), rel=1e-5)
    for prior in ((0.7, 0.25, 0.05), (0.6, 0.3, 0.1), (0.8, 0.15, 0.05)):
        assert found <= float(F.cross_entropy(torch.tensor(prior).log().expand(len(labels), 3), labels)) + 1e-6
    target = torch.randn(600, 2, generator=torch.Generator().manual_seed(2))
    squares = lowest_constant(0, batches(target))
    assert squares == pytest.approx(float(target.var(dim=0, correction=0).mean()), rel=1e-4)
    assert lowest_constant(0, [(X[:4], X[:4, :2]), (X[:4], X[:4, :3])]) is None


def test_a_task_knows_both() -> None:
    task = make_task(nn.Linear(7, 3), (X, CLASSES))
    assert task.reference_spread is not None
    assert task.best_constant_on(task.train) == pytest.approx(task.reference, rel=1e-5)
    own = make_task(nn.Linear(7, 3), (X, CLASSES), loss=lambda output, target: F.cross_entropy(output, target))
    assert own.reference_spread is None
    assert own.best_constant_on(own.train) is None
