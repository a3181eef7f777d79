"""Candidates that give the same weights are one candidate, and a search without any says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

import autoinit
from autoinit.graph import Graph
from autoinit.judging.budget import Budget
from autoinit.judging.trials import Candidate
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import space_of
from autoinit.search.distinct import Distinct, nothing_to_choose

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")

X = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))
CLASSES = (X, X[:, :3].argmax(1))


def fixed_scale() -> nn.Module:
    """Every weight behind an old hook, and no bias."""
    hidden = weight_norm(nn.Conv1d(1, 8, 3, bias=False))
    return nn.Sequential(
        nn.Unflatten(1, (1, 12)), hidden, nn.ReLU(), nn.Flatten(), spectral_norm(nn.Linear(80, 3, bias=False))
    )


class Adapted(nn.Module):
    """A frozen layer with a low-rank addition, before a frozen head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 24).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 12) * 0.1)
        self.up = nn.Parameter(torch.zeros(24, 2))
        self.head = nn.Linear(24, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.body(x) + x @ self.down.T @ self.up.T).relu())


def graph_of(model: nn.Module) -> Graph:
    return autoinit.trace(model, CLASSES)


@pytest.mark.parametrize(
    ("make", "why"), [(fixed_scale, "the old torch.nn.utils.weight_norm"), (Adapted, "low-rank addition")]
)
def test_where_no_recipe_changes_a_weight_nothing_is_tried_and_the_answer_says_why(make: type, why: str) -> None:
    torch.manual_seed(0)
    model = make()
    selection = autoinit.select(model, CLASSES, budget=Budget(steps=5000))
    assert (selection.kept, selection.answer, selection.remedy) == (True, "no better", "")
    assert selection.why.startswith("there is nothing to choose: no recipe changes any of the model's")
    assert why in selection.why
    assert len(selection.trials) == 0
    assert selection.cost.steps == 0
    assert not selection.lr_searched
    assert selection.why.endswith("; learning rates alone are not searched")
    assert str(selection).startswith("Your own weights are kept: there are no others to choose.")


def test_given_recipes_that_change_nothing_are_told_from_none_at_all() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(12, 3)))
    assert nothing_to_choose(graph, space_of(graph, lr_searched=False)) == ""
    embedding = space_of(graph, lr_searched=False, recipes=[Recipe(embedding="small")])
    assert "none of the given recipes changes any of the model's 2 parameters" in nothing_to_choose(graph, embedding)
    only_own = space_of(graph, lr_searched=False, recipes=[OWN])
    assert nothing_to_choose(graph, only_own)


def test_one_choice_that_changes_a_weight_is_enough() -> None:
    """A bias of the head beside kept weights can be set to the labels' frequencies."""
    graph = graph_of(nn.Sequential(weight_norm(nn.Linear(12, 3))))
    labelled = Graph(graph.layers, label_prior=(0.2, 0.3, 0.5))
    assert nothing_to_choose(labelled, space_of(labelled, lr_searched=False)) == ""


def test_recipes_that_come_to_the_same_have_one_that_stands_for_them() -> None:
    """Without a nonlinearity He's formula is LeCun's, and without a bias nothing is centred."""
    distinct = Distinct(graph_of(nn.Sequential(nn.Linear(12, 3, bias=False))))
    stands = {
        recipe.key: distinct.standing_for(Candidate(recipe)).recipe.key
        for recipe in (
            OWN,
            Recipe(embedding="small"),
            Recipe(base="he_normal"),
            Recipe(base="lecun_normal"),
            Recipe(base="xavier_normal"),
            Recipe(calibration="lsuv"),
            Recipe(calibration="lsuv_centred"),
        )
    }
    assert stands == {
        "as_is": "as_is",
        "as_is embedding=small": "as_is",
        "he_normal": "he_normal",
        "lecun_normal": "he_normal",
        "xavier_normal": "xavier_normal",
        "as_is calibration=lsuv": "as_is calibration=lsuv",
        "as_is calibration=lsuv_centred": "as_is calibration=lsuv",
    }


def test_another_learning_rate_is_another_candidate() -> None:
    distinct = Distinct(graph_of(nn.Sequential(nn.Linear(12, 3, bias=False))))
    slow, fast = Candidate(Recipe(base="he_normal"), -1), Candidate(Recipe(base="lecun_normal"), 1)
    assert (distinct.standing_for(slow), distinct.standing_for(fast)) == (slow, fast)


def test_a_search_ends_where_all_that_differs_has_been_tried_and_names_the_doubles() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(12, 16)), nn.Tanh(), weight_norm(nn.Linear(16, 3)))
    selection = autoinit.select(model, CLASSES, lr=1e-3, budget=Budget(steps=2500))
    searched = selection.trials[selection.trials.stage == "search"]
    assert len(searched) == 3  # its own, and two values of the head's bias
    assert OWN in dict(selection.alike).values()
    assert {recipe.key for recipe in dict(selection.alike).values()} <= set(searched.recipe)
    assert Recipe(base="he_normal") in dict(selection.alike)
    assert "not tried, as they give the same weights: own weights (" in str(selection)
