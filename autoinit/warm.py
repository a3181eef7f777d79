"""A warm start: the recommender's predictions say what a search tries first, and what it need not try."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from .bench import Bench
from .budget import Tally
from .errors import RecipeError
from .first_pass import first_passes
from .graph import Graph
from .metafeatures import Features, recipe_features
from .recipe import Recipe
from .recommender.learner import Predicted
from .recommender.model import Recommender
from .rules import resolve
from .space import Space, random_recipes

FIRST = 8
"""Recipes that are tried first: those that promise most together, well-known or not."""
LOOKED_AT = 16
"""Recipes through whose weights one batch is passed, to choose those; each takes a step, and what calibrates it."""
DRAWN = 48
"""Points of the space that are looked at, besides the well-known recipes. Of many, the best prediction is the one that
errs most."""


def warmed(
    space: Space,
    bench: Bench,
    task: Features,
    own: Mapping[str, float],
    recommender: Recommender,
    *,
    tally: Tally | None = None,
) -> Space:
    """Returns the space with another opening: the recipes that promise most, then the well-known ones.

    Those that are predicted to do harm, at the upper end of their interval too, are left out. Where the task is
    farther from the studied ones than most of them are from each other, the space is returned as it is.

    Args:
        space: of the search; where the candidates are listed, all of them stay.
        bench: with the owner's weights, which it has afterwards too; its seed is that of the random points.
        task: its features.
        own: root mean square of each weight as its owner drew it, by name.
        recommender: predicts what recipes gain.
        tally: told of the steps that looking at recipes takes.
    """
    if recommender.distance(task) > recommender.far:
        return space
    known = [*space.opening, *(recipe for recipe in recommender.portfolio if not space.listed)]
    drawn = [] if space.listed else random_recipes(space, DRAWN, bench.seed)
    found = {recipe: _features(recipe, bench.graph, own) for recipe in [*known, *drawn] if space.holds(recipe)}
    numbers = {recipe: features for recipe, features in found.items() if features is not None}
    if not numbers:
        return space
    predicted = recommender.predict(task, list(numbers.values()))
    first = _first(recommender, task, numbers, len(numbers) if space.listed else LOOKED_AT)
    if space.listed:
        return dataclasses.replace(space, opening=(*first, *(one for one in space.opening if one not in first)))
    passes = first_passes(bench, first, tally=tally) or {}
    first = _first(recommender, task, {one: {**numbers[one], **passes.get(one, {})} for one in first}, FIRST)
    hopeful = _hopeful(list(numbers), predicted)
    rest = [recipe for recipe in space.opening if recipe in hopeful and recipe not in first]
    return dataclasses.replace(space, opening=(*first, *rest))


def _first(recommender: Recommender, task: Features, numbers: Mapping[Recipe, Features], count: int) -> list[Recipe]:
    """Returns the recipes to try where so many can be tried.

    By what is expected, and not by what is sure: a search finds out, and its gate keeps what is no gain.
    """
    recipes = list(numbers)
    predicted = recommender.predict(task, list(numbers.values()))
    return [recipes[place] for place in predicted.first(predicted.place, count)]


def _hopeful(recipes: Sequence[Recipe], predicted: Predicted) -> set[Recipe]:
    return {recipe for recipe, high in zip(recipes, predicted.high, strict=True) if high > 0}


def _features(recipe: Recipe, graph: Graph, own: Mapping[str, float]) -> Features | None:
    """Returns what a recipe is on an architecture; None where it does not fit."""
    try:
        return recipe_features(resolve(recipe, graph), graph, own)
    except RecipeError:
        return None
