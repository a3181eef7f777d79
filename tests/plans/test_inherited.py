"""What new rows, heads in closed form and stale weights get on paper."""

from __future__ import annotations

import dataclasses

import pytest
from graphs import RELU, mlp

import autoinit
from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.recipes.inherited import NEW_ROWS
from autoinit.recipes.recipe import OWN, Recipe


def longer() -> Graph:
    """Returns an MLP whose head has two rows more than its checkpoint."""
    graph = mlp(RELU)
    head = next(layer.name for layer in graph.layers if layer.role == "output")
    layers = (
        dataclasses.replace(one, keep="trained", new_rows=one.shape[0] - 2 if head in (one.name, one.of) else 0)
        for one in graph.layers
    )
    return dataclasses.replace(graph, layers=tuple(layers))


@pytest.mark.parametrize("rows", NEW_ROWS)
def test_only_tables_with_new_rows_are_given_some(rows: str) -> None:
    graph = longer()
    plan = autoinit.resolve(Recipe(rows=rows), graph)
    assert {fill.name for fill in plan.fills if fill.distribution == "given"} == {
        layer.name for layer in graph.layers if layer.new_rows
    }
    assert plan.pending
    assert all(fill.untouched for fill in autoinit.resolve(OWN, graph).fills)


def test_a_plan_says_which_rows_are_new() -> None:
    graph = longer()
    head = next(layer for layer in graph.weights or graph.layers if layer.new_rows)
    said = f"Rows {head.new_rows} to {head.shape[0] - 1} of {head.name} are new, the others are trained."
    assert said in autoinit.resolve("rows_mean", graph).notes


def test_a_closed_head_is_its_weight_and_its_bias() -> None:
    graph = mlp(RELU)
    plan = autoinit.resolve(Recipe(base="he_normal", head="class_means"), graph)
    given = {fill.name for fill in plan.fills if fill.distribution == "given"}
    assert given == {one.name for one in graph.layers if "output" in (one.role, graph[one.of].role if one.of else "")}
    assert all(plan[layer.name].distribution == "normal" for layer in graph.weights if layer.role != "output")


def test_what_a_fresh_start_keeps_is_not_renewed() -> None:
    graph = mlp(RELU)
    first = graph.layers[0]
    plan = autoinit.resolve("shrink_and_perturb", graph.keeping({first.name: "frozen"}))
    given = {layer.name for layer in graph.layers if first.name not in (layer.name, layer.of)}
    assert {fill.name for fill in plan.fills if fill.distribution == "given"} == given
    assert all(fill.untouched for fill in plan.fills if fill.name not in given)


def test_a_renewal_needs_something_to_draw() -> None:
    for wrong in ({"base": "as_is"}, {"base": "he_normal", "calibration": "lsuv"}):
        with pytest.raises(RecipeError, match="name a base other than 'as_is', and no calibration"):
            Recipe(renewal="redo", **wrong)


def test_fields_that_take_from_trained_weights_are_told() -> None:
    assert Recipe(base="he_normal", head="zero").inherited == ()
    assert Recipe(rows="mean", head="class_means").inherited == ("rows=mean", "head=class_means")
    assert Recipe(base="he_normal", renewal="redo").inherited == ("renewal=redo",)
