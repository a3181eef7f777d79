"""A warm start: the recommender's predictions say what a search tries first, and what it need not try."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..errors import RecipeError
from ..graph import Graph
from ..knowledge.features import Features, recipe_features
from ..plans.rules import resolve
from ..recipes.recipe import Recipe
from ..recipes.space import Space, random_recipes
from .model import Recommender

FIRST = 8
"""Recipes that are tried first: those that promise most together, well-known or not."""
DRAWN = 48
"""Points of the space that are looked at, besides the well-known recipes. Of many, the best prediction is the one that
errs most."""


def warmed(
    space: Space, graph: Graph, task: Features, own: Mapping[str, float], recommender: Recommender, *, seed: int
) -> Space:
    """Returns the space with another opening: the recipes that promise most together, then the well-known ones.

    Those that are predicted to do harm, at the upper end of their interval too, are left out. Where the task is
    farther from the studied ones than most of them are from each other, the space is returned as it is.

    Args:
        space: of the search; where the candidates are listed, all of them stay.
        graph: the architecture.
        task: its features.
        own: root mean square of each weight as its owner drew it, by name.
        recommender: predicts what recipes gain.
        seed: of the random points.
    """
    if recommender.distance(task) > recommender.far:
        return space
    known = [*space.opening, *(recipe for recipe in recommender.portfolio if not space.listed)]
    drawn = [] if space.listed else random_recipes(space, DRAWN, seed)
    found = {recipe: _features(recipe, graph, own) for recipe in [*known, *drawn] if space.holds(recipe)}
    numbers = {recipe: features for recipe, features in found.items() if features is not None}
    if not numbers:
        return space
    recipes = list(numbers)
    predicted = recommender.predict(task, list(numbers.values()))
    # By what is expected, and not by what is sure: a search finds out, and its gate keeps what is no gain.
    order = predicted.first(predicted.place, len(recipes) if space.listed else FIRST)
    first = [recipes[place] for place in order]
    harmful = {recipe for recipe, high in zip(recipes, predicted.high, strict=True) if high <= 0}
    rest = [recipe for recipe in space.opening if recipe not in {*first, *harmful}]
    return dataclasses.replace(space, opening=(*first, *rest))


def _features(recipe: Recipe, graph: Graph, own: Mapping[str, float]) -> Features | None:
    """Returns what a recipe is on an architecture; None where it does not fit."""
    try:
        return recipe_features(resolve(recipe, graph), graph, own)
    except RecipeError:
        return None
