from __future__ import annotations

import pytest
from graphs import GRAPHS, ONLY_FOR, linear, mlp, transformer

import autoinit
from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.recipes.catalogue import ALIASES, ENTRIES, NAMED, check_fits, entry_of
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.schemes import SCHEMES

REQUIRED = """as_is zeros constant uniform normal truncated_normal sparse identity xavier_normal xavier_uniform
he_normal he_uniform lecun_normal lecun_uniform orthogonal delta_orthogonal butterfly_orthogonal looks_linear
hadamard selu siren mimetic gpt2 fixup t_fixup deepnorm zero_residual admin edge_of_chaos dynamical_isometry mup irnn
chrono dcgan rl adaln_zero lsuv within_layer gradinit metainit nio multi_task label_prior fluctuation_driven""".split()


def test_the_catalogue_has_every_method_worth_having() -> None:
    assert set(REQUIRED) <= set(NAMED)
    assert set(REQUIRED) <= set(autoinit.catalogue()["name"])


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("name", NAMED)
def test_a_method_is_refused_where_it_means_nothing(name: str, kind: str) -> None:
    if kind in ONLY_FOR.get(name, set(GRAPHS)):
        check_fits(NAMED[name], GRAPHS[kind])
    else:
        with pytest.raises(RecipeError, match=rf"'{name}' is for networks with .*; this one has none\. Use "):
            check_fits(NAMED[name], GRAPHS[kind])


def test_a_recipe_spelled_out_is_refused_as_its_name_is() -> None:
    with pytest.raises(RecipeError, match="'siren' is for networks with sines"):
        check_fits(Recipe(base="siren", log2_gain=0.5), mlp())
    with pytest.raises(RecipeError, match="'siren' is for networks with sines"):
        check_fits(Recipe(rules=(("hidden", "siren"),)), mlp())
    with pytest.raises(RecipeError, match="'admin' is for networks with a normalization right after"):
        check_fits(Recipe(base="he_normal", calibration="admin"), transformer())
    with pytest.raises(RecipeError, match="'pissa' is for networks with low-rank adapters"):
        check_fits(Recipe(base="he_normal", adapter="pissa"), transformer())


def test_what_was_read_without_data_says_so() -> None:
    with pytest.raises(RecipeError, match="pass data= to see the rest"):
        check_fits(NAMED["siren"], Graph((linear("w", 3, 3),), source="modules"))


def test_a_recipe_spelled_out_has_the_entry_of_its_name() -> None:
    for entry in ENTRIES.values():
        assert entry_of(entry.recipe) == entry


def test_the_entry_of_a_scheme_tells_what_its_row_tells() -> None:
    assert all(ENTRIES[name].about is row.about for name, row in SCHEMES.items())


def test_other_names_are_no_names_of_the_catalogue_and_stand_for_one() -> None:
    assert not set(ALIASES) & set(NAMED)
    assert set(ALIASES.values()) <= set(NAMED)


def test_the_table_has_a_row_for_each() -> None:
    table = autoinit.catalogue()
    assert list(table["name"]) == list(NAMED)
    assert set(table["kind"]) == {"scheme", "recipe", "calibration", "inheritance"}
    row = table.set_index("name").loc["he_normal"]
    assert (row["recipe"], row["source"]) == ("he_normal", "He et al. 2015, arXiv:1502.01852")
