from __future__ import annotations

import re
from typing import get_args

import pytest
from graphs import GRAPHS

from autoinit.calibrations import gradinit, metainit, nio
from autoinit.calibrations.methods import CALIBRATIONS
from autoinit.errors import RecipeError
from autoinit.recipes.calibrations import CALIBRATION_ROWS, Calibration, CalibrationName, steps_of
from autoinit.recipes.catalogue import ENTRIES
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import space_of

ROWS = pytest.mark.parametrize("row", CALIBRATION_ROWS.values(), ids=list(CALIBRATION_ROWS))


def test_every_row_has_its_function_and_every_function_its_row() -> None:
    assert sorted(CALIBRATIONS) == sorted(CALIBRATION_ROWS)


@ROWS
def test_a_row_is_all_that_a_recipe_needs_to_know_it(row: Calibration) -> None:
    recipe = Recipe(base=row.base, calibration=row.name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert (ENTRIES[row.name].recipe, ENTRIES[row.name].kind) == (recipe, "calibration")
    assert ENTRIES[row.name].about is row.about


@ROWS
def test_a_row_is_all_that_a_search_needs_to_know_it(row: Calibration) -> None:
    spaces = [space_of(graph, lr_searched=False, allowance=1e6) for graph in GRAPHS.values()]
    assert any(row.name in one.choices for space in spaces for one in space.dimensions if one.name == "calibration")


def test_names_are_those_of_the_rows() -> None:
    assert get_args(CalibrationName) == ("none", *CALIBRATION_ROWS)
    names = re.escape(", ".join(["none", *CALIBRATION_ROWS]))
    with pytest.raises(RecipeError, match=rf"'calibration' must be one of {names}\. Got 'lsv'"):
        Recipe(calibration="lsv")


def test_an_unknown_name_in_a_file_is_answered_with_those_there_are() -> None:
    *names, last = map(repr, ["none", *CALIBRATION_ROWS])
    with pytest.raises(RecipeError, match=rf"calibration: Input should be {', '.join(names)} or {last}\.$"):
        Recipe.from_json('{"calibration": "lsv"}')


def test_steps_are_what_the_functions_spend() -> None:
    spent = {
        "gradinit": gradinit.ITERATIONS * gradinit.BOUND_COST,
        "nio": nio.ITERATIONS * nio.COST,
        "metainit": metainit.ITERATIONS * metainit.COST,
    }
    assert {name: row.steps for name, row in CALIBRATION_ROWS.items() if row.steps} == spent
    assert (steps_of("none"), steps_of("lsuv"), steps_of("nio")) == (0, 0, spent["nio"])


def test_the_cost_in_words_is_the_cost_in_steps() -> None:
    for row in CALIBRATION_ROWS.values():
        if row.steps:
            assert row.about.cost == f"about {round(row.steps, -2)} training steps"
