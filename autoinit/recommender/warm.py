"""A warm start: what a search tries first, the recommender's candidates and the well-known recipes by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain, zip_longest
from typing import TypeVar

from ..errors import RecipeError
from ..graph import Graph
from ..knowledge.features import Features, recipe_features
from ..plans.rules import resolve
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import Space
from .model import Recommender

T = TypeVar("T", bound=Hashable)

FIRST = 8
"""Recipes that the recommender adds: those that promise most together, well-known or not."""


def warmed(space: Space, graph: Graph, task: Features, own: Mapping[str, float], recommender: Recommender) -> Space:
    """Returns the space with another opening: the recommender's recipes and the well-known ones by turns.

    By turns, since the one errs where the other does not: so a search has, after any number of candidates, a lower
    regret than with the well-known ones alone, and mostly than with either (docs/results.md). Where the task is farther
    from the studied ones than any of them was from those of other families, the space is returned as it is.

    No random points of the space are among them: they have a lower regret when replayed, but of five that won a real
    gate four ended no better than the owner's weights (docs/results.md).

    Args:
        space: of the search; where the candidates are listed, all of them stay.
        graph: the architecture.
        task: its features.
        own: root mean square of each weight as its owner drew it, by name.
        recommender: predicts which recipes do better than others.
    """
    if recommender.distance(task) > recommender.far:
        return space
    known = [*space.opening, *(recipe for recipe in recommender.portfolio if not space.listed)]
    others = [recipe for recipe in known if recipe != OWN and space.holds(recipe)]
    found = {recipe: _features(recipe, graph, own) for recipe in others}
    numbers = {recipe: features for recipe, features in found.items() if features is not None}
    if not numbers:
        return space
    recipes = list(numbers)
    predicted = recommender.predict(task, list(numbers.values()))
    # By what is expected, and not by what is sure: a search finds out, and its gate keeps what is no gain.
    order = predicted.first(predicted.place, len(recipes) if space.listed else FIRST)
    return dataclasses.replace(space, opening=tuple(by_turns([recipes[place] for place in order], space.opening)))


def by_turns(first: Iterable[T], second: Iterable[T]) -> list[T]:
    """Returns one of each in turns, without what came before; where one ends, the rest of the other."""
    turns = chain.from_iterable(zip_longest(first, second))
    return list(dict.fromkeys(one for one in turns if one is not None))


def _features(recipe: Recipe, graph: Graph, own: Mapping[str, float]) -> Features | None:
    """Returns what a recipe is on an architecture; None where it does not fit."""
    try:
        return recipe_features(resolve(recipe, graph), graph, own)
    except RecipeError:
        return None
