"""A small model stands for a large one: what it finds is drawn for the other; other kinds are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from pairs import DATA, TOKENS, Recurrent, Residual, gpt2, llama, mlp, shared, stands_for
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import autoinit
from autoinit.errors import DataError, ModelError, RecipeError
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.choices import keep_choices

SMALLER: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Any]] = {
    "narrow MLP": (lambda: mlp(64), lambda: mlp(16), DATA),
    "shallow MLP": (lambda: mlp(16, 12), lambda: mlp(16, 3), DATA),
    "shallow residual net": (lambda: Residual(32, 8), lambda: Residual(16, 2), DATA),
    "narrow LSTM": (lambda: Recurrent(nn.LSTM, 32), lambda: Recurrent(nn.LSTM, 8), DATA),
    "2 of 12 layers of GPT-2": (lambda: gpt2(12), lambda: gpt2(2), {"input_ids": TOKENS, "labels": TOKENS}),
    "narrow GPT-2": (lambda: gpt2(2, 64, 4), lambda: gpt2(2, 16, 2), {"input_ids": TOKENS, "labels": TOKENS}),
    "Llama": (lambda: llama(6, 32, 4), lambda: llama(2, 16, 2), {"input_ids": TOKENS, "labels": TOKENS}),
}


@pytest.mark.parametrize("name", SMALLER)
def test_depth_and_width_may_differ(name: str) -> None:
    large, small, data = SMALLER[name]
    model, proxy = large(), small()
    with unchanged(model), unchanged(proxy):
        original = stands_for(model, proxy, data)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(layer.size for layer in original.graph.layers) == count
    assert original.graph.layers == keep_choices(model, autoinit.trace(model, data)).layers
    assert str(original).endswith("finals and gate are the model's own")
    with unchanged(model):
        plan = original.plan(Recipe(base="orthogonal"), 0)
    assert {fill.name for fill in plan.fills} == {layer.name for layer in original.graph.layers}


def test_fewer_layers_without_skips_are_told_to_be_a_risk() -> None:
    said = "without skips, what suits few layers may be too much or too little for many"
    with torch.device("meta"):
        deep, wide, residual = mlp(16, 12), mlp(64), Residual(16, 8)
    assert said in str(stands_for(deep, mlp(16, 3)))
    assert said not in str(stands_for(wide, mlp(16)))
    assert said not in str(stands_for(residual, Residual(16, 2)))
    assert said not in str(stands_for(mlp(16, 12), mlp(16, 3)))  # there the model itself has the last word


OTHER_KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], str]] = {
    "no hidden layer": (lambda: mlp(16, 3), lambda: mlp(16, 1), "roles: only the model has hidden"),
    "activation": (lambda: mlp(16), lambda: mlp(16, activation=nn.Tanh), "only the model has relu.*proxy has tanh"),
    "normalization": (lambda: mlp(16, normalized=True), lambda: mlp(16), "only the model has BatchNorm1d"),
    "other normalization": (
        lambda: Residual(16, 2),
        lambda: Residual(16, 2, nn.BatchNorm1d),
        "normalizations: only the model has LayerNorm; normalizations: only the proxy has BatchNorm1d",
    ),
    "place of normalization": (
        lambda: Residual(16, 2, post=True),
        lambda: Residual(16, 2),
        "only the model has a normalization after residual adds",
    ),
    "residual": (
        lambda: Residual(16, 2),
        lambda: mlp(16),
        "has norm_scale, residual_out.*model has residual adds",
    ),
    "cell": (lambda: Recurrent(nn.LSTM, 16), lambda: Recurrent(nn.GRU, 16), "only the model has lstm cells"),
    "parametrization": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10)),
        lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
        "parametrizations: only the model has weight_norm",
    ),
}


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_another_kind_is_refused_by_name(name: str) -> None:
    large, small, message = OTHER_KINDS[name]
    model, proxy = large(), small()
    with pytest.raises(ModelError, match=message), unchanged(model), unchanged(proxy):
        stands_for(model, proxy)


def test_tied_and_free_heads_are_two_kinds() -> None:
    model = gpt2(2)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    with pytest.raises(ModelError, match="only the model has output"):
        stands_for(model, gpt2(2), {"input_ids": TOKENS, "labels": TOKENS})


def test_a_model_is_no_proxy_of_itself() -> None:
    model = mlp()
    with pytest.raises(ModelError, match="proxy is the model itself"):
        stands_for(model, model)


def test_a_proxy_as_large_as_the_model_is_refused_and_one_that_shares_its_layers_is_not() -> None:
    model, proxy = mlp(16), mlp(64)
    with pytest.raises(ModelError, match=r"proxy has 13,130 parameters, and the model only 1,754.*proxy=small"):
        stands_for(model, proxy)
    with pytest.raises(ModelError, match=r"proxy has 1,754 parameters, and the model no more.*autoinit\.smaller"):
        stands_for(mlp(16), mlp(16))
    assert stands_for(shared(6), shared(2))


def test_what_is_wrong_with_a_proxy_is_said_of_the_proxy() -> None:
    other = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
    frozen = mlp(8).requires_grad_(False)
    for proxy, kind in ((other, DataError), (frozen, ModelError), (mlp, ModelError)):
        with pytest.raises(kind, match=r"\(This is about the proxy, on which probes run"):
            autoinit.select(mlp(16), DATA, proxy=proxy)  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        autoinit.select(frozen, DATA, proxy=mlp(4))
    assert "proxy" not in str(caught.value)
    with pytest.raises(DataError) as told:
        autoinit.select(mlp(16), (DATA[0][:1], DATA[1][:1]), proxy=mlp(8))
    assert "about the proxy" not in str(told.value)


def test_a_model_that_takes_other_data_is_told_so() -> None:
    model = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10))
    with pytest.raises(DataError, match=r"\[16, 32\]"):
        stands_for(model, mlp(16, 2))


def test_globs_name_the_models_own_parameters() -> None:
    original = stands_for(mlp(16, 6), mlp(16, 3), exclude=["10.*", "0.*"])  # of which the proxy has one
    assert original.graph["10.weight"].keep == original.graph["0.bias"].keep == "excluded by name"
    assert original.proxy["0.weight"].keep == "excluded by name"
    assert not original.proxy["2.weight"].keep
    with pytest.raises(ModelError, match=r"'11\.\*' matches no parameter"):
        stands_for(mlp(16, 6), mlp(16, 3), only="11.*")


def test_a_recipe_for_other_networks_changes_nothing() -> None:
    model = mlp(64)
    original = stands_for(model, mlp(16))
    with pytest.raises(RecipeError, match="sines"), unchanged(model):
        original.plan(Recipe(base="siren"), 0)


def test_a_model_without_weights_gets_a_plan() -> None:
    """A Llama of seven billion parameters on the meta device, chosen on two narrow layers."""
    tokens = {"input_ids": TOKENS, "labels": TOKENS}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32))
    original = stands_for(model, llama(2, 16, 2), tokens)
    plan = original.plan(Recipe(base="he_normal", residual_out="scaled"), 0)
    assert plan["model.layers.31.mlp.down_proj.weight"].std == pytest.approx((2 / 11008) ** 0.5 / 64**0.5, rel=0.5)
    assert "of 6,738,415,616 parameters, 9 of 129 layers of weights, 4 of 64 residual adds" in str(original)
    with pytest.raises(RecipeError, match="meta device"):
        original.plan(Recipe(calibration="lsuv"), 0)
