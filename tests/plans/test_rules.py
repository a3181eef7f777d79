from __future__ import annotations

import math

import pytest
import torch
from graphs import GRAPHS, ONLY_FOR, bias, linear, lstm, mlp, transformer
from torch import nn

import autoinit
from autoinit.errors import ArgumentError
from autoinit.graph import Graph, Layer
from autoinit.plans.bias import SMALLEST_FREQUENCY
from autoinit.plans.rules import resolve
from autoinit.plans.table import coverage
from autoinit.recipes.catalogue import ENTRIES, NAMED
from autoinit.recipes.needs import NEEDS
from autoinit.recipes.recipe import Recipe


def test_as_is_touches_nothing() -> None:
    plan = resolve(Recipe(), mlp())
    assert all(fill.untouched for fill in plan.fills)
    assert coverage(plan.fills).startswith("Sets 0 and rescales 0 of 8 parameters (0 % of")


def test_he_says_why() -> None:
    fill = resolve(Recipe(base="he_normal"), mlp())["1.weight"]
    assert (fill.distribution, fill.std) == ("normal", pytest.approx(0.5))
    assert fill.reason == "He for relu: std = √2/√8 = 0.5"


def test_gain_is_relative_and_biases_start_at_zero() -> None:
    plan = resolve(Recipe(base="he_normal", log2_gain=1.0), mlp())
    assert plan["1.weight"].std == pytest.approx(1.0)
    assert "× 2 (gain)" in plan["1.weight"].reason
    assert plan["1.bias"].values == (0.0,)


def test_depth_slope_is_centred() -> None:
    plan, flat = (resolve(Recipe(base="he_normal", depth_slope=slope), mlp(depth=5)) for slope in (2.0, 0.0))
    ratios = [plan[f"{i}.weight"].std / flat[f"{i}.weight"].std for i in range(5)]
    assert ratios == pytest.approx([0.5, 2**-0.5, 1.0, 2**0.5, 2.0])


@pytest.mark.parametrize(("head", "factor"), [("same", 1.0), ("eighth", 0.125)])
def test_head_as_is_is_rescaled(head: str, factor: float) -> None:
    fill = resolve(Recipe(head=head), mlp())["3.weight"]
    assert (fill.distribution, fill.factor) == ("keep", factor)


def test_zero_head_and_label_prior() -> None:
    plan = resolve(Recipe(head="zero", head_bias="label_prior"), mlp())
    assert plan["3.weight"].values == (0.0,)
    assert plan["3.bias"].values[:3] == pytest.approx((math.log(0.9), math.log(0.1), math.log(SMALLEST_FREQUENCY)))
    assert plan["0.bias"].untouched


def test_a_prior_of_another_size_is_kept_with_a_reason() -> None:
    graph = Graph(mlp().layers, label_prior=(0.5, 0.5))
    fill = resolve(Recipe(base="he_normal", head_bias="label_prior"), graph)["3.bias"]
    assert fill.untouched
    assert "10 classes" in fill.reason


def test_residual_rules() -> None:
    graph = transformer(blocks=2)
    scaled = resolve(Recipe(residual_out="scaled"), graph)
    assert scaled["block.0.down.weight"].factor == pytest.approx(0.5)
    assert scaled["block.0.out.weight"].factor == pytest.approx(0.5)
    assert scaled["block.0.up.weight"].untouched
    zero = resolve(Recipe(residual_out="zero"), graph)
    assert zero["block.1.out.weight"].values == (0.0,)
    power = resolve(Recipe(branch_power=0.5), graph)
    assert power["block.0.up.weight"].factor == pytest.approx(0.5)
    assert power["block.0.down.weight"].untouched


def test_query_and_key_slices_of_a_fused_weight() -> None:
    fill = resolve(Recipe(qk_log2=-1.0), transformer())["block.0.qkv.weight"]
    assert fill.slice_factors == (0.5, 0.5, 1.0)
    assert fill.factor == 1.0


@pytest.mark.parametrize(("rule", "std"), [("small", 0.02), ("inverse_sqrt", 0.25)])
def test_embeddings(rule: str, std: float) -> None:
    assert resolve(Recipe(embedding=rule), transformer())["embed.weight"].std == pytest.approx(std)
    assert resolve(Recipe(base="he_normal"), transformer())["embed.weight"].untouched
    assert resolve(Recipe(base="truncated_normal_002"), transformer())["embed.weight"].std == 0.02


def test_recurrent_rules() -> None:
    forget = resolve(Recipe(recurrent="orthogonal_forget"), lstm())
    assert forget["weight_hh"].distribution == "orthogonal"
    assert forget["weight_hh"].std == pytest.approx(1 / math.sqrt(6))
    assert forget["bias_ih"].values == (0.0, 1.0, 0.0, 0.0)
    assert forget["bias_hh"].values == (0.0, 0.0, 0.0, 0.0)
    assert forget["weight_ih"].untouched
    assert resolve(Recipe(recurrent="identity"), lstm())["weight_hh"].distribution == "identity"


def test_a_role_s_own_rule_beats_the_base() -> None:
    plan = resolve(Recipe(base="he_normal", rules=(("output", "orthogonal"),)), mlp())
    assert plan["3.weight"].distribution == "orthogonal"
    assert plan["2.weight"].distribution == "normal"


def test_what_must_stay_is_kept_with_its_reason() -> None:
    plan = resolve(Recipe(base="he_normal"), mlp().restricted(exclude="1.*"))
    assert plan["1.weight"].untouched
    assert plan["1.weight"].reason == "excluded by name"


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in NAMED for kind in GRAPHS if kind in ONLY_FOR.get(name, GRAPHS)]
)
def test_every_parameter_gets_a_fill_with_a_reason(name: str, kind: str) -> None:
    plan = resolve(NAMED[name], GRAPHS[kind])
    assert list(plan) == list(GRAPHS[kind])
    assert all(fill.reason for fill in plan.fills)


def with_positions(shape: tuple[int, ...]) -> Graph:
    """A Transformer of width 16 with a table of positions of that shape."""
    table = Layer(name="places", shape=shape, kind="other", role="position")
    return Graph((*transformer().layers, table), residual_adds=4)


@pytest.mark.parametrize(
    ("recipe", "std"),
    [
        (Recipe(embedding="small"), 0.02),
        (Recipe(embedding="inverse_sqrt"), 0.25),
        (Recipe(base="truncated_normal"), 0.02),
        (NAMED["gpt2"], 0.02),
        (NAMED["t_fixup"], 0.25 * 18**-0.25),
        (Recipe(base="normal", rules=(("embedding", "uniform"),)), 0.02),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(40, 16), (1, 40, 16), (1, 16, 7, 7)])
def test_a_table_of_positions_gets_what_the_tokens_beside_it_get(
    recipe: Recipe, std: float, shape: tuple[int, ...]
) -> None:
    plan = resolve(recipe, with_positions(shape))
    assert plan["places"].std == pytest.approx(std)
    assert (plan["places"].distribution, plan["places"].std) == (plan["embed.weight"].distribution, pytest.approx(std))


def test_recipes_that_say_nothing_of_embeddings_keep_positions() -> None:
    plan = resolve(Recipe(base="he_normal"), with_positions((40, 16)))
    assert plan["places"].untouched
    assert plan["places"].reason == "a position table's scale does not follow from fans"


def test_what_is_no_graph_and_no_seed_is_told() -> None:
    with pytest.raises(ArgumentError, match=r"graph is a list\. Pass the Graph that autoinit\.trace"):
        resolve("he_normal", [])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="seed must be a whole number from 0"):
        resolve("he_normal", mlp(), seed=-1)


@pytest.mark.parametrize("name", NAMED)
def test_a_layer_without_entries_is_kept_and_its_bias_is_not(name: str) -> None:
    layers = (
        linear("empty", 4, 0, role="input"),
        bias("empty.bias", "empty", 4),
        linear("none", 0, 4, depth=1),
        linear("head", 3, 4, role="output", depth=2),
    )
    graph = Graph(layers)
    if not all(NEEDS[need].met(graph) for need in ENTRIES[name].about.needs):
        return
    plan = resolve(name, graph)
    assert plan["empty"].reason == plan["none"].reason == "it has no entries"


def test_a_rule_for_heads_says_where_none_is_told() -> None:
    model = nn.ModuleDict({"policy": nn.Linear(4, 2), "value": nn.Linear(4, 1)})
    for recipe, said in (("rl", "what rl gives a policy's head"), (Recipe(head="zero"), "head=zero sets nothing")):
        notes = " ".join(autoinit.apply_(model, recipe).notes)
        assert "No head was told" in notes
        assert said in notes
    seen = autoinit.apply_(
        model, "rl", torch.ones(2, 4), step=lambda m, x: m["policy"](x).sum() + m["value"](x).square().sum()
    )
    assert not any("No head" in note for note in seen.notes)
