"""The candidates that rankings are measured on: sixteen recipes for every task, and random points of its space."""

from __future__ import annotations

from typing import Any

from autoinit.recipes.space import random_recipes

FIXED: tuple[dict[str, object], ...] = (
    {},
    {"log2_gain": 1.0},
    {"log2_gain": -1.0},
    {"head": "zero"},
    {"base": "he_normal"},
    {"base": "he_normal", "log2_gain": 1.0},
    {"base": "he_normal", "log2_gain": -1.0},
    {"base": "xavier_normal"},
    {"base": "xavier_normal", "log2_gain": 2.0},
    {"base": "lecun_normal"},
    {"base": "lecun_normal", "depth_slope": -1.0},
    {"base": "lecun_normal", "depth_slope": 1.0},
    {"base": "truncated_normal_002"},
    {"base": "orthogonal"},
    {"base": "orthogonal", "log2_gain": 0.5},
    {"base": "orthogonal", "calibration": "lsuv"},
)
"""Recipe fields; all of them do something on every task."""

RANDOM = 8
"""Random points of the task's own space beside them: what a search has to tell apart after its first trials."""


def candidates(graph: Any, *, seed: int = 0) -> list[Any]:
    """Returns the fixed recipes and the random ones of one architecture, the owner's own first.

    Args:
        graph: the architecture, an `autoinit.Graph`.
        seed: of the random ones.
    """
    from autoinit import Recipe
    from autoinit.recipes.space import space_of

    fixed = [Recipe(**fields) for fields in FIXED]  # type: ignore[arg-type]
    return [*fixed, *random_recipes(space_of(graph, lr_searched=False), RANDOM, seed)]
