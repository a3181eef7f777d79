import dataclasses
from typing import get_args

import pytest

from autoinit.recipes import recipe as recipes
from autoinit.recipes.adapters import ADAPTER_ROWS
from autoinit.recipes.calibrations import CALIBRATION_ROWS
from autoinit.recipes.catalogue import ENTRIES
from autoinit.recipes.growths import GROWTH_ROWS
from autoinit.recipes.inherited import NEW_ROWS, RENEWALS
from autoinit.recipes.names import OWN_TITLE, glossary, meanings, recipe_of, recipe_titles, title
from autoinit.recipes.recipe import OWN, Recipe


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (OWN, "own weights"),
        (Recipe(log2_gain=1), "own weights, gain × 2"),
        (Recipe(base="orthogonal", log2_gain=-0.454, calibration="lsuv"), "orthogonal, gain × 0.73, LSUV"),
        (
            Recipe(base="hadamard", depth_slope=-0.801, branch_power=0.211, residual_out="scaled", head="eighth"),
            "hadamard, last/first × 0.57, branches / L^0.21, branch ends / √L, head / 8",
        ),
        (Recipe(base="orthogonal", qk_log2=-1, attention="mimetic"), "orthogonal, q and k × 0.5, mimetic attention"),
        (Recipe(base="he_normal", rules={"hidden": "orthogonal"}), "he_normal, hidden orthogonal"),
        (Recipe(base="he_normal", calibration="nio"), "he_normal, NIO, gradient agreement"),
    ],
)
def test_title(recipe, said):
    assert title(recipe) == said


def test_what_has_a_name_is_called_by_it():
    for entry in ENTRIES.values():
        if entry.recipe != OWN:
            assert title(entry.recipe) in ENTRIES


FIELDS = {field.name for field in dataclasses.fields(Recipe)} - {"base", "start"}  # a start has nothing beside it
VALUES = {
    "mode": [mode for mode in get_args(recipes.FanMode) if mode != "own"],
    "log2_gain": [0.5],
    "depth_slope": [0.5],
    "branch_power": [0.5],
    "residual_out": ["scaled", "zero"],
    "depth_rule": ["fixup", "t_fixup", "deepnorm"],
    "head": ["eighth", "zero", "class_means"],
    "head_bias": ["zero", "label_prior"],
    "embedding": ["small", "inverse_sqrt"],
    "qk_log2": [0.5],
    "attention": ["mimetic"],
    "recurrent": ["orthogonal", "orthogonal_forget", "identity", "chrono"],
    "bias": ["zero"],
    "norms": ["around_one"],
    "modulation": ["zero"],
    "widths": ["mup"],
    "base_width": [128],
    "rules": [(("output", "he_normal"),)],
    "adapter": list(ADAPTER_ROWS),
    "growth": list(GROWTH_ROWS),
    "rows": list(NEW_ROWS),
    "renewal": list(RENEWALS),
    "calibration": [name for name in CALIBRATION_ROWS if name != "none"],
}


def test_each_value_of_each_field_is_said_and_told_apart():
    assert set(VALUES) == FIELDS
    base = Recipe(base="he_normal", log2_gain=0.25)  # so that none of them is an entry
    varied = [dataclasses.replace(base, **{name: value}) for name, values in VALUES.items() for value in values]
    titles = [title(recipe) for recipe in varied]
    assert len(set(titles)) == len(titles)
    assert all(said.startswith("he_normal") and said != title(base) for said in titles)


def test_meanings_are_of_the_words_that_are_there():
    searched = [title(Recipe(base="orthogonal", depth_slope=0.7, head_bias="label_prior")), title(OWN)]
    assert [word for word, _ in meanings(searched)] == ["last/first", "label prior"]
    assert meanings([OWN_TITLE, "lsuv"]) == []  # `autoinit.catalogue()` explains what has a name
    centred = title(Recipe(base="he_normal", calibration="lsuv_centred"))
    assert [word for word, _ in meanings([centred])] == ["centred LSUV"]


def test_own_weights_are_called_so():
    assert title(Recipe()) == OWN_TITLE


def test_recipes_are_read_from_their_keys():
    recipes = [
        OWN,
        Recipe(base="orthogonal", log2_gain=-0.5, calibration="lsuv"),
        Recipe(base="he_normal", mode="fan_out", head="zero", bias="zero"),
        Recipe(base="he_normal", rules=(("query", "orthogonal"), ("key", "xavier_normal"))),
        Recipe(base="lecun_normal", widths="mup", base_width=32),
    ]
    assert [recipe_of(recipe.key) for recipe in recipes] == recipes
    assert recipe_of("</script><b>") is None
    assert recipe_of("he_normal colour=red") is None


def test_names_by_key_tell_recipes_apart():
    alike = [Recipe(base="orthogonal", log2_gain=gain).key for gain in (0.5, 0.5001)]
    titles = recipe_titles([*alike, "as_is", "he_normal log2_gain=1"])
    assert len(set(titles.values())) == 4
    assert titles["as_is"] == "own weights"
    assert titles["he_normal log2_gain=1"] == "he_normal, gain × 2"


def test_a_name_of_the_catalogue_that_stands_for_several_choices_is_spelled_out():
    told = dict(glossary([ENTRIES["lsuv_centred"].recipe.key, "he_normal", "as_is"]))
    assert told["lsuv_centred"] == "orthogonal, centred LSUV"
    assert told["centred LSUV"].startswith("each layer's output is brought to mean 0")
    assert set(told) == {"lsuv_centred", "centred LSUV"}
