"""Which recipes a study tries on an architecture: which ones, in what order, and why others are left out."""

from __future__ import annotations

import pytest
from graphs import lstm, mlp, relu_rnn, transformer

from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.judging.trials import Candidate
from autoinit.recipes.catalogue import as_recipe
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import Dimension, space_of
from autoinit.search.distinct import Distinct
from autoinit.study.candidates import allowed_space, candidates_of, random_recipes
from autoinit.study.spec import SpaceSpec

GRAPHS = [mlp(), transformer(), lstm()]


def candidates(graph: Graph, seed: int = 0, **spec: object) -> tuple[Recipe, ...]:
    allowed = SpaceSpec.model_validate(spec)
    return candidates_of(allowed, graph, allowed_space(allowed, graph), seed=seed)[0]


@pytest.mark.parametrize("graph", GRAPHS, ids=["mlp", "transformer", "lstm"])
def test_as_is_comes_first_then_named_then_opening_then_random(graph: Graph) -> None:
    named = ["he_normal", "xavier_uniform"]
    found = candidates(graph, recipes=named, opening=True, random=5)
    space = space_of(graph, lr_searched=False)
    expected = dict.fromkeys([OWN, *map(as_recipe, named), *space.opening, *random_recipes(space, 5, 0)])
    assert found == tuple(recipe for recipe in expected if recipe in found)
    distinct = Distinct(graph)
    assert [distinct.standing_for(Candidate(recipe)).recipe for recipe in found] == list(found)
    assert {distinct.standing_for(Candidate(recipe)).recipe for recipe in expected} == set(found)
    assert len(found) >= 10


@pytest.mark.parametrize("graph", GRAPHS, ids=["mlp", "transformer", "lstm"])
def test_a_seed_decides_the_random_ones_and_nothing_else(graph: Graph) -> None:
    first, again, other = (candidates(graph, seed, recipes=["he_normal"], random=8) for seed in (3, 3, 4))
    assert first == again
    assert first[:2] == other[:2]
    assert set(first[2:]).isdisjoint(other[2:])
    assert candidates(graph, 3, recipes=["he_normal"], random=5) == first[:7]  # fewer are the first of more


def test_what_stands_there_twice_is_tried_once() -> None:
    same = ["he_normal", {"base": "he_normal"}, "as_is", {}]
    assert candidates(mlp(), recipes=same) == (OWN, Recipe(base="he_normal"))
    everything = candidates(transformer(), recipes=["orthogonal"], opening=True, random=300, dimensions=["head"])
    assert len(set(everything)) == len(everything)
    assert {recipe.key for recipe in everything} >= {"as_is", "as_is head=eighth", "as_is head=zero"}


def test_what_gives_the_weights_of_an_earlier_one_is_left_out_with_its_name() -> None:
    spec = SpaceSpec.model_validate({"recipes": [{"qk_log2": -1.0}, "he_normal", "mup", {"embedding": "small"}]})
    found, left_out = candidates_of(spec, mlp(), allowed_space(spec, mlp()), seed=0)
    assert [recipe.key for recipe in found][:2] == ["as_is", "he_normal"]
    assert left_out["as_is qk_log2=-1"] == "It gives the same weights as as_is here."
    assert left_out["as_is embedding=small"] == "It gives the same weights as as_is here."
    on_transformer, rest = candidates_of(spec, transformer(), allowed_space(spec, transformer()), seed=0)
    assert "as_is qk_log2=-1" in [recipe.key for recipe in on_transformer]
    assert "as_is qk_log2=-1" not in rest


def test_what_does_not_fit_is_left_out_with_its_reason() -> None:
    spec = SpaceSpec.model_validate({"recipes": ["fixup", "he_normal", {"recurrent": "chrono"}]})
    graph = relu_rnn()
    found, left_out = candidates_of(spec, graph, allowed_space(spec, graph), seed=0)
    assert [recipe.key for recipe in found] == ["as_is", "he_normal"]
    assert list(left_out) == [as_recipe("fixup").key, "as_is recurrent=chrono"]
    assert "residual" in left_out[as_recipe("fixup").key]
    assert "LSTM or GRU" in left_out["as_is recurrent=chrono"]
    on_lstm, rest = candidates_of(spec, lstm(), allowed_space(spec, lstm()), seed=0)
    assert [recipe.key for recipe in on_lstm] == ["as_is", "he_normal", "as_is recurrent=chrono"]
    assert len(rest) == 1


def test_whole_space_is_allowed_where_the_study_says_nothing() -> None:
    for graph in GRAPHS:
        assert allowed_space(SpaceSpec(), graph) == space_of(graph, lr_searched=False)
        assert allowed_space(SpaceSpec(), graph, lr_searched=True) == space_of(graph, lr_searched=True)


def test_dimensions_are_kept_in_the_order_of_the_space_with_the_learning_rate() -> None:
    spec = SpaceSpec(dimensions=("calibration", "base", "recurrent"))
    names = [one.name for one in allowed_space(spec, transformer(), lr_searched=True).dimensions]
    assert names == ["base", "calibration", "lr_step"]  # a Transformer has no recurrent weights
    assert [one.name for one in allowed_space(spec, lstm()).dimensions] == ["base", "recurrent", "calibration"]


@pytest.mark.parametrize(
    ("gain", "default"), [((-1.0, 1.0), 0.0), ((0.5, 2.0), 0.5), ((-3.0, -1.0), -1.0), ((2, 2), 2)]
)
def test_gain_is_narrowed_and_its_default_lies_inside(gain: tuple[float, float], default: float) -> None:
    spec = SpaceSpec(gain=gain, dimensions=("log2_gain",))
    (dimension,) = allowed_space(spec, mlp()).dimensions
    assert dimension == Dimension("log2_gain", default, low=gain[0], high=gain[1])
    drawn = random_recipes(allowed_space(spec, mlp()), 50, 0)
    assert all(gain[0] <= recipe.log2_gain <= gain[1] for recipe in drawn)
    assert (len(set(drawn)) == 1) == (gain[0] == gain[1])


def test_calibrations_are_narrowed_to_those_that_the_architecture_has() -> None:
    def choices(graph: Graph, *names: str) -> tuple[str | int, ...]:
        spec = SpaceSpec.model_validate({"calibrations": names, "dimensions": ["calibration"]})
        return allowed_space(spec, graph).dimensions[0].choices

    assert choices(mlp(), "lsuv", "none") == ("none", "lsuv")
    assert choices(mlp(), "lsuv") == ("lsuv",)
    assert choices(mlp(), "admin") == ("none",)  # for post-norm Transformers only
    assert choices(transformer(post_norm=True), "admin") == ("admin",)
    spec = SpaceSpec(calibrations=("lsuv",))
    assert {recipe.calibration for recipe in random_recipes(allowed_space(spec, mlp()), 20, 0)} == {"lsuv"}


def test_random_recipes_reach_every_choice_and_fill_every_range() -> None:
    space = space_of(transformer(), lr_searched=False)
    drawn = random_recipes(space, 400, 7)
    for dimension in space.dimensions:
        values = [getattr(recipe, dimension.name) for recipe in drawn]
        if dimension.choices:
            assert set(values) == set(dimension.choices), dimension.name
        else:
            assert all(dimension.low <= value <= dimension.high for value in values), dimension.name
            middle = (dimension.low + dimension.high) / 2
            assert 150 < sum(value > middle for value in values) < 250, dimension.name


def test_no_random_recipes_and_no_recipes_leave_as_is_alone() -> None:
    assert candidates(mlp()) == (OWN,)
    assert random_recipes(space_of(mlp(), lr_searched=False), 0, 0) == []
    assert random_recipes(space_of(mlp(), lr_searched=True), 30, 1)  # a place of the learning rate is drawn and dropped


def test_unknown_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match="he_normal"):
        as_recipe("he_norml")
    with pytest.raises(ValueError, match="he_norml"):
        SpaceSpec(recipes=("he_norml",))
