"""What a search on a proxy may choose from, so that whatever wins fits the model as well."""

from __future__ import annotations

import dataclasses

from ..errors import RecipeError
from ..recipes.space import Dimension, Space


def joint_space(space: Space, other: Space, *, measurable: bool = True) -> Space:
    """Returns what a search on a proxy may choose from, so that whatever wins fits the model as well.

    Args:
        space: of the proxy.
        other: of the model.
        measurable: whether the model has weights to calibrate; on the meta device it has none.

    Raises:
        RecipeError: a listed recipe is calibrated, and the model has no weights to calibrate.
    """
    if space.listed:
        if calibrated := [recipe.key for recipe in space.listed if recipe.calibration != "none" and not measurable]:
            raise RecipeError(
                f"{calibrated[0]!r} is calibrated on batches, and the model is on the meta device, without weights. "
                "Leave it out, or give the model memory first with model.to_empty(device=…)."
            )
        return space
    theirs = {dimension.name: dimension for dimension in other.dimensions}
    shared = (_shared(one, theirs.get(one.name), measurable) for one in space.dimensions)
    joint = Space(tuple(dimension for dimension in shared if dimension is not None), ())
    known = set(other.opening)
    opening = (recipe for recipe in space.opening if recipe in known and (measurable or recipe.calibration == "none"))
    return dataclasses.replace(joint, opening=tuple(opening))


def _shared(one: Dimension, other: Dimension | None, measurable: bool) -> Dimension | None:
    """Returns the dimension with the choices of both; None where the other has none, or nothing is left to choose."""
    if other is None or (one.name == "calibration" and not measurable):
        return None
    if not one.choices:
        return one
    choices = tuple(choice for choice in one.choices if choice in other.choices)
    return dataclasses.replace(one, choices=choices) if len(choices) > 1 else None
