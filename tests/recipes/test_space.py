from __future__ import annotations

import pytest
from graphs import GRAPHS, lstm, mlp, transformer

from autoinit.activations import Activation
from autoinit.errors import RecipeError
from autoinit.graph import Graph
from autoinit.recipes.catalogue import check_fits
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import LR_STEPS, space_of


def names(graph: Graph, **rest: bool) -> set[str]:
    return {dimension.name for dimension in space_of(graph, lr_searched=False, **rest).dimensions}


def test_dimensions_follow_the_roles() -> None:
    plain = {"base", "log2_gain", "depth_slope", "head", "head_bias", "calibration"}
    assert names(mlp()) == plain
    assert names(lstm()) == {"base", "log2_gain", "head", "recurrent", "calibration"}
    residual = {"branch_power", "residual_out", "depth_rule", "embedding", "qk_log2", "attention"}
    assert names(transformer()) == plain - {"head_bias"} | residual


def test_a_kept_role_has_no_dimension() -> None:
    assert "embedding" not in names(transformer().restricted(exclude="embed.*"))


def test_sines_bring_siren_first() -> None:
    space = space_of(mlp(Activation("sin", (30.0,))), lr_searched=False)
    assert "siren" in space.dimensions[0].choices
    assert space.opening[0].base == "siren"
    assert "siren" not in space_of(mlp(), lr_searched=False).dimensions[0].choices


@pytest.mark.parametrize(
    ("kind", "dimension", "choice"),
    [
        ("relu", "base", "looks_linear"),
        ("tanh", "base", "dynamical_isometry"),
        ("post_ln", "calibration", "admin"),
        ("post_ln", "depth_rule", "deepnorm"),
        ("pre_ln", "attention", "mimetic"),
        ("lstm", "recurrent", "chrono"),
        ("generator", "norms", "around_one"),
        ("agent", "base", "rl"),
        ("agent", "calibration", "multi_task"),
        ("modulated", "modulation", "zero"),
        ("spiking", "calibration", "fluctuation_driven"),
        ("relu", "calibration", "lsuv_centred"),
    ],
)
def test_specialists_are_choices_where_they_fit_and_are_tried_early(kind: str, dimension: str, choice: str) -> None:
    space = space_of(GRAPHS[kind], lr_searched=False)
    choices = {found.name: found.choices for found in space.dimensions}
    assert choice in choices[dimension]
    assert choice in [getattr(recipe, dimension) for recipe in space.opening[:7]]
    for other, graph in GRAPHS.items():
        offered = {found.name: found.choices for found in space_of(graph, lr_searched=False).dimensions}
        if dimension in offered and choice in offered[dimension]:
            check_fits(Recipe(**{dimension: choice}), graph)  # what is offered is never refused
        else:
            assert other != kind


def test_costly_calibrations_join_where_they_cost_a_hundredth() -> None:
    def offered(allowance: float, width: int = 8) -> set[str]:
        space = space_of(mlp(width=width), lr_searched=False, allowance=allowance)
        return set(next(found.choices for found in space.dimensions if found.name == "calibration"))

    assert offered(20_000) == {"none", "lsuv", "lsuv_centred", "within_layer"}
    assert offered(1e6) - offered(20_000) == {"gradinit", "nio", "metainit"}
    assert offered(1e6, width=4096) == offered(20_000)  # they hold copies of the weights


def test_learning_rate_is_a_dimension_only_when_searched() -> None:
    dimension = space_of(mlp(), lr_searched=True).dimensions[-1]
    assert (dimension.name, dimension.low, dimension.high) == ("lr_step", LR_STEPS[0], LR_STEPS[-1])
    assert not space_of(mlp(), lr_searched=False).has("lr_step")


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_opening_candidates_lie_inside_the_space(graph: Graph) -> None:
    space = space_of(graph, lr_searched=True)
    assert Recipe() not in space.opening
    assert len(set(space.opening)) == len(space.opening) >= 6
    for recipe in space.opening:
        assert space.decode(space.encode(recipe, 1)) == (recipe, 1)
        for dimension in space.dimensions:
            value = space.encode(recipe)[dimension.name]
            assert value in dimension.choices if dimension.choices else dimension.low <= value <= dimension.high


def test_listed_candidates_are_all_there_is_and_as_is_joins_them() -> None:
    space = space_of(mlp(), lr_searched=False, recipes=["he_normal", Recipe(head="zero"), "he_normal"])
    assert space.listed == (Recipe(), Recipe(base="he_normal"), Recipe(head="zero"))
    assert [space.decode({"candidate": i})[0] for i in range(3)] == list(space.listed)
    assert space.encode(Recipe(head="zero")) == {"candidate": 2}


@pytest.mark.parametrize("one", ["he_normal", Recipe(base="he_normal")])
def test_one_candidate_needs_no_list(one: str | Recipe) -> None:
    assert space_of(mlp(), lr_searched=False, recipes=one) == space_of(mlp(), lr_searched=False, recipes=[one])


@pytest.mark.parametrize(
    ("recipes", "said"), [([], "at least one"), ((), "at least one"), (["x"], "'x'"), ("x", "'x'")]
)
def test_bad_lists(recipes: object, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        space_of(mlp(), lr_searched=False, recipes=recipes)  # type: ignore[arg-type]
