"""What may be chosen on a proxy: what fits the model as well."""

from __future__ import annotations

import pytest
import torch
from pairs import DATA, Residual, mlp, stands_for

from autoinit.errors import RecipeError
from autoinit.proxies.spaces import joint_space
from autoinit.recipes.catalogue import check_fits
from autoinit.recipes.space import space_of
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task


def test_the_space_is_what_both_have() -> None:
    proxy = make_task(Residual(16, 1), DATA)
    original = stands_for(Residual(16, 4), Residual(16, 1))
    small, large = (space_of(graph, lr_searched=True) for graph in (trace_task(proxy), original.graph))
    joint = joint_space(small, large)
    assert {dimension.name for dimension in joint.dimensions} <= {dimension.name for dimension in large.dimensions}
    choices = {dimension.name: dimension.choices for dimension in joint.dimensions}
    assert choices["residual_out"] == ("same", "zero")  # one add has no 1/√L to tell from 1
    assert joint.has("lr_step")
    for recipe in joint.opening:
        assert joint.decode(joint.encode(recipe))[0] == recipe
        check_fits(recipe, original.graph)
    assert len(joint.opening) > 5


def test_a_model_without_weights_is_not_calibrated() -> None:
    with torch.device("meta"):
        model = mlp(64)
    original = stands_for(model, mlp(16))
    space = space_of(original.graph, lr_searched=False)
    assert not joint_space(space, space, measurable=False).has("calibration")
    assert all(recipe.calibration == "none" for recipe in joint_space(space, space, measurable=False).opening)
    listed = space_of(original.graph, lr_searched=False, recipes=["lsuv"])
    with pytest.raises(RecipeError, match=r"calibrated on batches.*to_empty"):
        joint_space(listed, listed, measurable=False)
    assert joint_space(listed, listed) is listed
