"""Scores become masks: exact counts, ties, limits, and layers that are left empty."""

from __future__ import annotations

import pytest
import torch

from autoinit.errors import ArgumentError, ModelError
from autoinit.tickets.ranking import best, check_sparsity, collapse, kept_of

SCORES = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(12.0, 20.0).reshape(2, 4)}


def test_the_highest_stay_exactly_as_many_as_asked_for() -> None:
    masks = best(SCORES, 0.5)
    assert torch.equal(masks["a"], SCORES["a"] >= 10)
    assert bool(masks["b"].all())
    ties = best({"a": torch.zeros(3, 4), "b": torch.zeros(2, 4)}, 0.6)
    assert sum(int(mask.sum()) for mask in ties.values()) == kept_of(20, 0.6) == 8


def test_by_layers_each_has_one_density() -> None:
    masks = best(SCORES, 0.75, scope="layer")
    assert [int(mask.sum()) for mask in masks.values()] == [3, 2]
    assert torch.equal(masks["b"], SCORES["b"] >= 18)


def test_what_is_gone_does_not_come_back() -> None:
    alive = {"a": SCORES["a"].masked_fill(SCORES["a"] > 9, -torch.inf), "b": SCORES["b"]}
    masks = best(alive, 0.5)
    assert not masks["a"].flatten()[10:].any()
    assert int(masks["a"].sum()) == 2


@pytest.mark.parametrize("sparsity", [0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), float("inf"), True, "0.8", None])
def test_a_sparsity_out_of_range_is_refused(sparsity: object) -> None:
    with pytest.raises(ArgumentError, match="lies between 0 and 1"):
        check_sparsity(sparsity, {"a": 12, "b": 8})


def test_beyond_one_weight_per_layer_the_largest_sparsity_is_named() -> None:
    sizes = {"a": 1000, "b": 1000, "c": 1000}
    with pytest.raises(ArgumentError, match=r"2 of 3000 .* 3 layers.*largest possible here is (0\.\d+)\.") as told:
        check_sparsity(0.9993, sizes)
    named = float(str(told.value).rpartition(" is ")[2].rstrip("."))
    assert kept_of(3000, named) == 3
    check_sparsity(named, sizes)


def test_a_collapsed_layer_is_named_with_what_is_possible() -> None:
    masks = best(SCORES, 0.6)
    (note,) = collapse(SCORES, masks)
    assert "a has lost all weights" in note
    assert "up to a sparsity of 0.55" in note  # of "a" the highest score is the ninth of all 20
    assert collapse(SCORES, best(SCORES, 0.55)) == ()


def test_scores_that_are_not_finite_are_refused() -> None:
    for value in (torch.nan, torch.inf):
        with pytest.raises(ModelError, match="scores of b are not finite"):
            best({"a": torch.ones(3), "b": torch.tensor([1.0, value])}, 0.5)
