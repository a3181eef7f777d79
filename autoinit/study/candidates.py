"""Which recipes a study tries on one architecture."""

from __future__ import annotations

import dataclasses

from ..errors import RecipeError
from ..graph import Graph
from ..judging.trials import Candidate
from ..recipes.catalogue import check_fits
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import Dimension, Measured, Space, check_measurable, random_recipes, space_of
from ..search.distinct import Distinct
from .spec import SpaceSpec


def allowed_space(spec: SpaceSpec, graph: Graph, *, lr_searched: bool = False, measured: Measured = "loss") -> Space:
    """Returns the space of an architecture, as far as the study allows it.

    Args:
        spec: which dimensions, gains and calibrations are allowed.
        graph: the architecture.
        lr_searched: whether the learning rate is a dimension too.
        measured: what calibrations can look at.
    """
    whole = space_of(graph, lr_searched=lr_searched, measured=measured)
    kept = [
        _narrowed(one, spec)
        for one in whole.dimensions
        if spec.dimensions is None or one.name in spec.dimensions or one.name == "lr_step"
    ]
    return Space(tuple(kept), whole.opening)


def _narrowed(dimension: Dimension, spec: SpaceSpec) -> Dimension:
    if dimension.name == "log2_gain" and spec.gain is not None:
        low, high = spec.gain
        return dataclasses.replace(dimension, low=low, high=high, default=min(max(0.0, low), high))
    if dimension.name == "calibration" and spec.calibrations is not None:
        choices = tuple(name for name in dimension.choices if name in spec.calibrations) or ("none",)
        return dataclasses.replace(dimension, choices=choices, default=choices[0])
    return dimension


def candidates_of(
    spec: SpaceSpec, graph: Graph, space: Space, *, seed: int, measured: Measured = "loss"
) -> tuple[tuple[Recipe, ...], dict[str, str]]:
    """Returns the recipes to try on an architecture, as-is first, and why others of the study are left out.

    One that gives the same weights as an earlier one is left out too: a factor on query and key weights, say, where
    nothing attends.

    Args:
        spec: names the recipes.
        graph: the architecture.
        space: of `allowed_space`, for the random points.
        seed: of those.
        measured: what calibrations can look at.
    """
    starts = (Recipe(start=name) for name in graph.starts)
    wanted = [
        OWN,
        *starts,
        *spec.chosen,
        *(space.opening if spec.opening else ()),
        *random_recipes(space, spec.random, seed),
    ]
    left_out: dict[str, str] = {}
    fitting: list[Recipe] = []
    distinct = Distinct(graph)
    for recipe in dict.fromkeys(wanted):
        try:
            check_fits(recipe, graph)
            check_measurable(recipe, measured)
        except RecipeError as problem:
            left_out[recipe.key] = str(problem)
            continue
        first = distinct.standing_for(Candidate(recipe)).recipe
        if first == recipe:
            fitting.append(recipe)
        else:
            left_out[recipe.key] = f"It gives the same weights as {first.key} here."
    return tuple(fitting), left_out
