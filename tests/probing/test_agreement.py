"""Two ways of training agree up to rounding, or it is said in words where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autoinit.judging.score import Curve
from autoinit.probing.agreement import (
    NEGLIGIBLE,
    Seen,
    Ways,
    changed_attribute,
    gradients_differ,
    losses_differ,
    scale_weights,
    state_of,
    tolerance_of,
    trainings_differ,
)
from autoinit.task.task import make_task

WAYS = Ways("here", "there", "both", "in one")


def curve(*losses: float, held_back: float = 1.0) -> Curve:
    return Curve(losses, ((len(losses), held_back),), None, None, 0.0, (), None)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (curve(2.0, 1.0), ""),
        (curve(2.0, 1.0005), ""),
        (curve(2.0, 1.002), "its training loss is 1.002 here, 1 there"),
        (curve(2.0, math.nan), "its training loss is nan here, 1 there"),
        (curve(2.0, 1.0, held_back=1.1), "its held-back loss is 1.1 here, 1 there"),
    ],
)
def test_losses_agree_up_to_rounding(found: Curve, said: str) -> None:
    assert losses_differ(found, curve(2.0, 1.0), 1e-3, WAYS) == said


def test_gradients_agree_up_to_rounding_of_their_own_norm_or_of_the_whole() -> None:
    expected = {"a": torch.ones(4), "b": torch.zeros(4)}
    assert gradients_differ({"a": torch.ones(4) * 1.005, "b": torch.zeros(4) + 1e-6}, expected, 1e-3, WAYS) == ""
    assert gradients_differ({"a": torch.ones(4) * 1.02, "b": torch.zeros(4)}, expected, 1e-3, WAYS) == (
        "the gradient of a differs in one"
    )
    assert gradients_differ({"a": torch.ones(4)}, expected, 1e-3, WAYS) == (
        "both differ in which weights have a gradient (b)"
    )


def test_rounding_is_that_of_the_lowest_precision() -> None:
    rows = torch.randn(64, 3), torch.randn(64, 1)
    assert tolerance_of(make_task(nn.Linear(3, 1), rows)) == 1e-3
    assert tolerance_of(make_task(nn.Linear(3, 1).double(), rows)) == 1e-6
    assert tolerance_of(make_task(nn.Linear(3, 1), rows, autocast=torch.bfloat16)) == 0.05


def test_what_is_trained_is_scaled() -> None:
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale_weights(make_task(model, (torch.randn(64, 3), torch.randn(64, 1))), 0.5)
    assert torch.equal(model.weight, before["weight"] / 2)
    assert torch.equal(model.bias, before["bias"])


def test_a_number_or_a_tensor_that_a_module_has_changed_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 1))
    model[0].count, model[0].seen = 1, [torch.zeros(1)]
    before = state_of(model)
    assert changed_attribute(before, state_of(model)) == ""
    model[0].seen = [torch.zeros(1)]
    assert changed_attribute(before, state_of(model)) == "0.seen[0]"
    model[0].seen, model[0].count = [before["0.seen[0]"]], 2
    assert changed_attribute(before, state_of(model)) == "0.count"


def seen(change: torch.Tensor, gradient: torch.Tensor, weight: float = 0.0) -> Seen:
    """A training of one weight, which changes so, by such a gradient at the end."""
    before = torch.full_like(change, weight)
    return Seen(curve(2.0, 1.0), {"w": gradient}, {"w": before}, {"w": before + change})


def test_weights_agree_where_gradients_are_more_than_rounding() -> None:
    """An optimizer like Adam moves every entry as far; of some the sign of the gradient is chance."""
    gradient = torch.tensor([1.0, -1.0, 0.1 * NEGLIGIBLE, -0.1 * NEGLIGIBLE])
    expected = seen(torch.tensor([0.1, -0.1, 0.1, 0.1]), gradient)
    assert trainings_differ(seen(torch.tensor([0.1, -0.1, -0.1, -0.1]), gradient), expected, 1e-3, WAYS) == ""
    assert trainings_differ(seen(torch.tensor([0.1, 0.1, 0.1, 0.1]), gradient), expected, 1e-3, WAYS) == (
        "w comes to be another here than there"
    )


def test_a_step_smaller_than_the_weights_last_digit_shows_no_difference() -> None:
    gradient = torch.full((4,), 1e-7)
    for weight, differs in ((1.0, False), (0.0, True)):
        expected = seen(torch.full((4,), 1e-7), gradient, weight)
        assert bool(trainings_differ(seen(torch.full((4,), 2e-7), gradient, weight), expected, 1e-3, WAYS)) == differs
