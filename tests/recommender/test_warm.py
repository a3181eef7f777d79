"""A search's opening as the recommender would have it."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from once import shipped_recommender
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.graph import Graph
from autoinit.knowledge.features import Features
from autoinit.probing.first_pass import pass_features
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import Space, space_of
from autoinit.recommender.model import Recommender
from autoinit.recommender.warm import FIRST, warmed
from autoinit.task.features import own_scales, task_features
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task


@cache
def recommender() -> Recommender:
    """One for which no task is far."""
    return dataclasses.replace(shipped_recommender(), far=float("inf"))


@cache
def digits_task() -> tuple[Graph, Features, dict[str, float]]:
    torch.manual_seed(0)
    model = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(64, 64), nn.GELU())], nn.Linear(64, 10))
    rows, labels = load_digits(return_X_y=True)
    data = torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)
    task = make_task(model, data, optimizer=torch.optim.AdamW, lr=3e-3)
    graph = trace_task(task)
    told = task_features(task, graph)
    return graph, told | pass_features(task, graph, told, once=True), own_scales(task.model, graph)


def space(recipes: list[str] | None = None) -> Space:
    return space_of(digits_task()[0], lr_searched=False, recipes=recipes)


def warm(cold: Space, by: Recommender) -> Space:
    graph, task, own = digits_task()
    return warmed(cold, graph, task, own, by)


def test_recommended_and_well_known_ones_come_by_turns() -> None:
    cold = space()
    hot = warm(cold, recommender())
    assert hot.dimensions == cold.dimensions
    assert len(set(hot.opening)) == len(hot.opening)
    assert Recipe() not in hot.opening
    assert set(cold.opening) < set(hot.opening)
    assert len(hot.opening) <= FIRST + len(cold.opening)
    assert hot.opening[: len(cold.opening)] != cold.opening
    assert all(hot.opening.index(recipe) <= 2 * place + 1 for place, recipe in enumerate(cold.opening))
    assert all(cold.holds(recipe) for recipe in hot.opening)
    for recipe in hot.opening:
        assert hot.decode(hot.encode(recipe))[0] == recipe


def test_the_owner_s_weights_are_no_candidate_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be of the few recipes that do well together on all studied tasks."""
    monkeypatch.setattr("autoinit.recommender.warm.FIRST", 100)
    known = dataclasses.replace(recommender(), portfolio=(Recipe(), *recommender().portfolio))
    assert Recipe() not in warm(space(), known).opening


def test_listed_candidates_all_stay_and_are_only_put_in_order() -> None:
    names = ["normal", "lsuv", "he_normal", "xavier_uniform", "identity"]
    cold = space(names)
    hot = warm(cold, recommender())
    assert set(hot.opening) == set(cold.opening)
    assert hot.opening != cold.opening
    assert hot.listed == cold.listed


def test_far_from_what_was_studied_nothing_is_changed() -> None:
    cold = space()
    assert warm(cold, dataclasses.replace(recommender(), far=0.0)) == cold


def test_select_starts_with_what_the_recommender_promises() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(64, 64), nn.GELU())], nn.Linear(64, 10))
    rows, labels = load_digits(return_X_y=True)
    data = torch.tensor(rows / 16, dtype=torch.float32), torch.tensor(labels)
    budget = autoinit.Budget(trials=5, steps=2000)
    tried = []
    for learned in (False, recommender()):
        selection = autoinit.select(
            model, data, optimizer=torch.optim.AdamW, lr=3e-3, budget=budget, apply=False, recommender=learned
        )
        searched = selection.trials[selection.trials["stage"] == "search"]
        tried.append(list(searched["recipe"]))
    cold, hot = tried
    assert cold[0] == hot[0] == "as_is"
    assert hot[1:] == [recipe.key for recipe in warm(space(), recommender()).opening][: len(hot) - 1]
    assert cold[1:] != hot[1:]


def test_what_no_recommender_can_be_is_refused() -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(autoinit.ArgumentError, match="recommender is a int"):
        autoinit.select(model, (torch.randn(64, 4), torch.zeros(64, dtype=torch.long)), recommender=3)  # type: ignore[arg-type]
