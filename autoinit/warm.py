"""A warm start: the recommender's predictions say what a search tries first, and what it need not try."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from .errors import RecipeError
from .graph import Graph
from .metafeatures import Features, recipe_features
from .recipe import Recipe
from .recommender.model import Recommender
from .rules import resolve
from .space import Space, random_recipes

FIRST = 8
"""Recipes that are tried first: the best of all, well-known or not."""
DRAWN = 256
"""Points of the space that are looked at, besides the well-known recipes; a prediction costs a millisecond."""


def warmed(
    space: Space, graph: Graph, task: Features, own: Mapping[str, float], recommender: Recommender, *, seed: int
) -> Space:
    """Returns the space with another opening: the recipes that promise most, then the well-known ones.

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
    known = list(space.opening)
    drawn = [] if space.listed else random_recipes(space, DRAWN, seed)
    entries = [
        (recipe, found) for recipe in dict.fromkeys([*known, *drawn]) if (found := _features(recipe, graph, own))
    ]
    if not entries:
        return space
    predicted = recommender.predict(task, [features for _, features in entries])
    # By what is expected, and not by what is sure: a search finds out, and its gate keeps what is no gain.
    order = np.argsort(-predicted.outcome, kind="stable")
    ranked = [entries[place][0] for place in order]
    if space.listed:
        return dataclasses.replace(space, opening=(*ranked, *(one for one in known if one not in ranked)))
    hopeful = [entries[place][0] for place in order if predicted.high[place] > 0]
    first = ranked[:FIRST]
    rest = [recipe for recipe in hopeful if recipe in known and recipe not in first]
    return dataclasses.replace(space, opening=(*first, *rest))


def _features(recipe: Recipe, graph: Graph, own: Mapping[str, float]) -> Features | None:
    """Returns what a recipe is on an architecture; None where it does not fit."""
    try:
        return recipe_features(resolve(recipe, graph), graph, own)
    except RecipeError:
        return None
