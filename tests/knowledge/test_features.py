"""What an architecture and a recipe on it are, in numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autoinit.knowledge.features import (
    FEATURES,
    LIMIT,
    architecture_features,
    own_features,
    ratio_features,
    recipe_features,
    relative_gain,
)
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import Recipe
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task


def graph_of(model: nn.Module, *shape: int) -> object:
    return trace_task(example_task(model, torch.zeros(4, *shape)))


def plain(activation: type[nn.Module] = nn.ReLU, depth: int = 4, width: int = 16) -> nn.Module:
    sizes = [8, *[width] * (depth - 1)]
    hidden = [part for size in sizes[:-1] for part in (nn.Linear(size, width), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 3))


class Residual(nn.Module):
    def __init__(self, blocks: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(blocks)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


RECIPES = ["as_is", "he_normal", "xavier_uniform", "orthogonal", "identity", "sparse", "looks_linear", "lsuv", "mup"]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", [plain(), plain(nn.Tanh), Residual()], ids=["relu", "tanh", "residual"])
def test_every_feature_is_in_the_table_and_finite(model: nn.Module, recipe: str) -> None:
    graph = graph_of(model, 8)
    own = {layer.name: 0.1 for layer in graph.weights}
    try:
        plan = resolve(recipe, graph)
    except ValueError:
        pytest.skip("the recipe is for other architectures")
    found = architecture_features(graph) | own_features(graph, own) | recipe_features(plan, graph, own)
    assert set(found) <= set(FEATURES)
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid])
def test_he_keeps_the_second_moment_on_any_activation(activation: type[nn.Module]) -> None:
    graph = graph_of(plain(activation), 8)
    found = recipe_features(resolve("he_normal", graph), graph, {})
    for name in ("init_gain", "init_growth", "init_slope", "init_head", "init_first"):
        assert found[name] == pytest.approx(0, abs=1e-6)


def test_gains_follow_the_recipe_and_not_its_name() -> None:
    graph = graph_of(plain(), 8)
    half = recipe_features(resolve(Recipe(base="he_normal", log2_gain=-1.0), graph), graph, {})
    lecun = recipe_features(resolve("lecun_normal", graph), graph, {})
    assert half["init_gain"] == pytest.approx(-1)
    assert half["init_growth"] == pytest.approx(-4)
    # LeCun's variance 1/fan_in lacks ReLU's factor 2, but at the output there is no activation
    assert lecun["init_gain"] == pytest.approx(-0.5 * 3 / 4)
    assert lecun["init_head"] == pytest.approx(0)
    sloped = recipe_features(resolve(Recipe(base="he_normal", depth_slope=1.0), graph), graph, {})
    assert sloped["init_slope"] > 0.5


def test_as_is_has_the_owners_gains_where_they_are_known() -> None:
    graph = graph_of(plain(), 8)
    plan = resolve("as_is", graph)
    unknown = recipe_features(plan, graph, {})
    assert unknown["init_as_is"] == 1
    assert "init_gain" not in unknown
    own = {layer.name: 2 * layer.activation.gain() / math.sqrt(layer.fan_in) for layer in graph.weights}
    known = recipe_features(plan, graph, own)
    assert known["init_gain"] == own_features(graph, own)["own_gain"] == pytest.approx(1)
    assert known["init_change_size"] == pytest.approx(0)
    he = recipe_features(resolve("he_normal", graph), graph, own)
    assert (he["init_as_is"], he["init_change"]) == (0, pytest.approx(-1))
    # a factor on the owner's draw is no draw of its own
    doubled = recipe_features(resolve(Recipe(log2_gain=1.0), graph), graph, own)
    assert (doubled["init_as_is"], doubled["init_kept"], doubled["init_gain"]) == (0, 1, pytest.approx(2))


def test_branches_are_told_from_the_main_path() -> None:
    graph = graph_of(Residual(4), 8)
    he = recipe_features(resolve("he_normal", graph), graph, {})
    zero = recipe_features(resolve(Recipe(base="he_normal", residual_out="zero"), graph), graph, {})
    scaled = recipe_features(resolve(Recipe(base="he_normal", residual_out="scaled"), graph), graph, {})
    assert (he["init_zero_branch"], zero["init_zero_branch"]) == (0, 1)
    assert zero["init_branch"] == -LIMIT
    assert scaled["init_branch"] == pytest.approx(he["init_branch"] - 1)  # 1/√4
    assert he["init_branch_sum"] == pytest.approx(he["init_branch"] + 1)
    assert scaled["init_growth"] == he["init_growth"]


def test_architectures_differ_where_they_do() -> None:
    relu, tanh = (architecture_features(graph_of(plain(kind), 8)) for kind in (nn.ReLU, nn.Tanh))
    residual = architecture_features(graph_of(Residual(4), 8))
    assert (relu["net_kinked"], relu["net_saturating"], relu["net_odd"]) == (0.75, 0, 0)
    assert (tanh["net_kinked"], tanh["net_saturating"], tanh["net_odd"]) == (0, 0.75, 0.75)
    assert relu["net_gain"] == pytest.approx((3 * math.sqrt(2) + 1) / 4)
    assert residual["net_adds"] == pytest.approx(math.log2(5))
    assert residual["net_branches"] == pytest.approx(8 / 10)
    assert residual["net_branch_length"] == 2
    assert relu["net_depth"] == 2
    assert relu["net_outputs"] == pytest.approx(math.log2(3))
    recurrent = architecture_features(graph_of(nn.LSTM(8, 16, batch_first=True), 5, 8))
    assert (recurrent["net_recurrent"] > 0, recurrent["net_gated_cells"]) == (True, 1)
    assert recurrent["net_steps"] == pytest.approx(math.log2(5))
    assert "net_steps" not in relu


def test_features_are_the_same_without_weights() -> None:
    on_meta = Residual().to("meta")
    graph = trace_task(example_task(on_meta, torch.zeros(4, 8, device="meta")))
    assert architecture_features(graph) == architecture_features(graph_of(Residual(), 8))


def test_a_weight_at_zero_is_at_the_limit() -> None:
    (layer, *_) = graph_of(plain(), 8).weights
    assert relative_gain(layer, 0.0) == -LIMIT
    assert relative_gain(layer, 1e9) == LIMIT


def test_parameters_count_for_each_row_of_data() -> None:
    found = ratio_features({"net_parameters": 5.0, "data_batch": 5.0, "data_batches": 3.0})
    assert found == {"net_per_row": pytest.approx(math.log2(1e5 / 256))}
    assert ratio_features({"net_parameters": 5.0}) == {}


@pytest.mark.parametrize("width", [16, 64])
def test_what_carries_over_is_the_same_whatever_the_width(width: int) -> None:
    graph = graph_of(plain(width=width), 8)
    found = architecture_features(graph) | recipe_features(resolve("he_normal", graph), graph, {})
    expected = {"net_bare_depth": math.log2(5), "net_branch_share": 0, "init_signal": 0, "init_backward": 0}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.02)
    assert found["init_apart"] == pytest.approx(-1.34, abs=0.05)


def test_branches_hold_their_share_and_add_to_the_stream_what_theory_says() -> None:
    graph = graph_of(Residual(4), 8)
    found = architecture_features(graph) | recipe_features(resolve("he_normal", graph), graph, {})
    assert found["net_branch_share"] == pytest.approx(4 * 1024 / (4 * 1024 + 8 * 16 + 16 * 3))
    assert (found["init_branch_first"], found["init_branch_last"]) == pytest.approx((0, -1), abs=0.1)  # 1 to 1, 1 to 4
    assert found["init_stream"] == pytest.approx(math.log2(5) / 2, abs=0.1)
    own = {layer.name: 0.25 for layer in graph.weights}
    assert own_features(graph, own)["own_bend"] == recipe_features(resolve("as_is", graph), graph, own)["init_bend"]
