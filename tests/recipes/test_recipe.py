from __future__ import annotations

import dataclasses

import pytest

from autoinit.errors import RecipeError
from autoinit.recipes.catalogue import NAMED, as_recipe, named
from autoinit.recipes.recipe import Recipe


def test_key_names_only_what_differs_from_the_default() -> None:
    assert Recipe().key == "as_is"
    assert Recipe(base="he_normal", log2_gain=0.5, head="zero").key == "he_normal log2_gain=0.5 head=zero"


def test_keys_differ_where_recipes_do() -> None:
    recipes = [*NAMED.values(), Recipe(log2_gain=0.123), Recipe(log2_gain=0.124), Recipe(rules=(("query", "as_is"),))]
    assert len({recipe.key for recipe in recipes}) == len(set(recipes))


@pytest.mark.parametrize(
    "recipe",
    [
        *NAMED.values(),
        Recipe(base="orthogonal", log2_gain=0.374, depth_slope=-1.25, calibration="lsuv"),
        Recipe(rules=(("query", "orthogonal"), ("value", "he_normal"))),
    ],
)
def test_json_round_trip(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_json_leaves_defaults_out() -> None:
    assert Recipe(base="he_normal").to_json() == '{"base": "he_normal"}'


def test_rules_may_be_a_mapping_and_have_one_order() -> None:
    one = Recipe(rules={"value": "he_normal", "query": "as_is"})  # type: ignore[arg-type]
    assert one == Recipe(rules=(("query", "as_is"), ("value", "he_normal")))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base": "he_norml"}, "Did you mean 'he_normal'"),
        ({"head": "tiny"}, "must be one of same, eighth, zero, class_means. Got 'tiny'"),
        ({"log2_gain": float("nan")}, "number from -30 to 30. Got nan"),
        ({"log2_gain": 99.0}, "Got 99.0"),
        ({"rules": (("qwery", "as_is"),)}, "Did you mean 'query'"),
        ({"rules": (("query", "nothing"),)}, "No initialization scheme is called 'nothing'"),
    ],
)
def test_bad_fields(fields: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        dataclasses.replace(Recipe(), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged: not JSON at line 1"),
        ('{"bse": "as_is"}', "no field 'bse'. Did you mean 'base'"),
        ('{"log2_gain": "x"}', "log2_gain"),
        ('{"base": "nothing"}', "No initialization scheme"),
    ],
)
def test_bad_json(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.from_json(text)


def test_names() -> None:
    assert named("lsuv") == Recipe(base="orthogonal", calibration="lsuv")
    assert as_recipe("he_normal") == as_recipe(Recipe(base="he_normal"))
    assert named("kaiming_normal") is named("he_normal")
    with pytest.raises(RecipeError, match=r"or a Recipe\. Got int"):
        as_recipe(3)


@pytest.mark.parametrize("role", ["bias", "norm_scale", "position"])
def test_schemes_are_for_what_has_fans(role: str) -> None:
    with pytest.raises(RecipeError, match="for weight matrices and embeddings"):
        Recipe(rules=((role, "normal"),))


def test_fan_modes_are_for_schemes_that_divide_by_a_fan() -> None:
    with pytest.raises(RecipeError, match="variance of 'orthogonal' is divided by no fan"):
        Recipe(base="orthogonal", mode="fan_out")


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    ("author", "known"), [("he", "he"), ("kaiming", "he"), ("xavier", "xavier"), ("glorot", "xavier")]
)
def test_names_of_other_libraries_are_understood_in_any_case(author: str, known: str, distribution: str) -> None:
    base = f"{known}_{distribution}"
    for name in (
        f"{author}_{distribution}",
        f"{author}_{distribution}_",
        f"{author.title()}-{distribution.title()}",
        f"{author.title()}{distribution.title()}",
        f"{author} {distribution}".upper(),
    ):
        assert named(name) == Recipe(base=base) == Recipe(base=name)
        assert Recipe(rules={"output": name}).rules == (("output", base),)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["He", "he", "Kaiming", "kaiming", "HE"])
def test_an_author_alone_is_asked_which(name: str) -> None:
    with pytest.raises(RecipeError, match=f"No recipe is called '{name}'. Choose he_normal or he_uniform."):
        named(name)
    with pytest.raises(RecipeError, match=f"scheme is called '{name}'. Choose he_normal or he_uniform."):
        Recipe(base=name)
    with pytest.raises(RecipeError, match="Choose xavier_normal or xavier_uniform"):
        named("Glorot")
