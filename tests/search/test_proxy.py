"""A small model stands for a large one: what it finds is drawn for the other; other kinds are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import autoinit
from autoinit.errors import DataError, ModelError, RecipeError
from autoinit.recipes.catalogue import as_recipe
from autoinit.recipes.recipe import Recipe
from autoinit.recipes.space import space_of
from autoinit.search.proxy import Original, carried, carry, joint_space, original_of
from autoinit.task.task import make_task
from autoinit.tracing.choices import keep_choices
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
TOKENS = torch.tensor(DIGITS.data[:64], dtype=torch.long)


def mlp(width: int = 16, layers: int = 3, activation: type[nn.Module] = nn.ReLU, normalized: bool = False) -> nn.Module:
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.Linear(width if index else 64, width), *[nn.BatchNorm1d(width)] * normalized, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 10))


def shared(layers: int) -> nn.Module:
    """Returns a net whose hidden layers are one and the same."""
    one = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), *[one] * layers, nn.Linear(16, 10))


class Residual(nn.Module):
    def __init__(self, width: int, blocks: int, norm: type[nn.Module] = nn.LayerNorm, post: bool = False) -> None:
        super().__init__()
        self.stem, self.head, self.post = nn.Linear(64, width), nn.Linear(width, 10), post
        self.norms = nn.ModuleList(norm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = norm(x + down(up(x).relu())) if self.post else x + down(up(norm(x)).relu())
        return self.head(x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int) -> None:
        super().__init__()
        self.cell, self.head = kind(8, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 8, 8))[0][:, -1])


def gpt2(layers: int, width: int = 16, heads: int = 2) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=17,
            n_positions=64,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
    )


def llama(layers: int, width: int, heads: int) -> Any:
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=64,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def stands_for(model: nn.Module, proxy: nn.Module, data: Any = DATA, **rest: Any) -> Original:
    task = make_task(proxy, data, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    return original_of(model, task, keep_choices(task.model, trace_task(task)), **rest)


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
    assert "the model itself was not trained" in str(original)
    with unchanged(model):
        plan = carry(Recipe(base="orthogonal"), original, apply=False)
    assert {fill.name for fill in plan.fills} == {layer.name for layer in original.graph.layers}


def test_fewer_layers_without_skips_are_told_to_be_a_risk() -> None:
    said = "without skips, what suits few layers may be too much or too little for many"
    assert said in str(stands_for(mlp(16, 12), mlp(16, 3)))
    assert said not in str(stands_for(mlp(64), mlp(16)))
    assert said not in str(stands_for(Residual(16, 8), Residual(16, 2)))


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


@pytest.mark.parametrize("recipe", ["he_normal", "orthogonal", "lsuv"])
def test_what_is_carried_is_what_apply_does(recipe: str) -> None:
    model, same = mlp(64, 6), mlp(64, 6)
    same.load_state_dict(model.state_dict())
    original = stands_for(model, mlp(16))
    plan = carry(as_recipe(recipe), original, seed=3)
    other = autoinit.apply_(same, recipe, DATA, seed=3)
    assert [fill.distribution for fill in plan.fills] == [fill.distribution for fill in other.fills]
    if recipe != "lsuv":  # which batch it is calibrated on is the task's choice
        assert plan == other
        assert all(one.equal(two) for one, two in zip(model.parameters(), same.parameters(), strict=True))


def test_a_recipe_for_other_networks_changes_nothing() -> None:
    model = mlp(64)
    original = stands_for(model, mlp(16))
    with pytest.raises(RecipeError, match="sines"), unchanged(model):
        carry(Recipe(base="siren"), original)


@pytest.mark.parametrize("calibration", ["lsuv", "lsuv_centred", "within_layer"])
def test_a_calibration_is_measured_on_the_model_itself(calibration: Any) -> None:
    torch.manual_seed(0)
    model = mlp(64, 6)
    original = stands_for(model, mlp(16))
    recipe = Recipe(base="he_normal", log2_gain=2.0, calibration=calibration)
    with unchanged(model):
        dry = carry(recipe, original, apply=False)
    plan = carry(recipe, original)
    assert plan == dry
    x, _ = original.task.train[0]
    for index, part in enumerate(model):
        x = part(x)
        if isinstance(part, nn.Linear):
            assert x.std().item() == pytest.approx(2.0**2, rel=0.1), index
    fresh = mlp(64, 6)
    autoinit.apply_(fresh, plan)
    assert all(one.equal(two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))


def test_label_priors_are_those_of_the_data() -> None:
    model = mlp(64)
    carry(Recipe(head_bias="label_prior", head="zero"), stands_for(model, mlp(16)))
    counts = torch.bincount(torch.tensor(DIGITS.target)) / len(DIGITS.target)
    torch.testing.assert_close(model[-1].bias.softmax(0), counts, atol=0.02, rtol=0)  # type: ignore[union-attr,operator]


def test_everything_else_stays_as_it_is() -> None:
    model = mlp(64, normalized=True)
    original = stands_for(model, mlp(16, normalized=True))
    state = torch.get_rng_state()
    buffers = [buffer.clone() for buffer in model.buffers()]
    carry(Recipe(base="he_normal", calibration="lsuv"), original)
    assert torch.get_rng_state().equal(state)
    assert all(one.equal(two) for one, two in zip(model.buffers(), buffers, strict=True))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_space_is_what_both_have() -> None:
    proxy = make_task(Residual(16, 1), DATA)
    original = stands_for(Residual(16, 4), Residual(16, 1))
    small, large = (space_of(graph, lr_searched=True) for graph in (trace_task(proxy), original.graph))
    joint = joint_space(small, large)
    assert {dimension.name for dimension in joint.dimensions} <= {dimension.name for dimension in large.dimensions}
    choices = {dimension.name: dimension.choices for dimension in joint.dimensions}
    assert choices["residual_out"] == ("same", "zero")  # one add has no 1/√L to tell from 1
    assert joint.has("lr_step")
    for recipe in joint.opening:
        assert joint.decode(joint.encode(recipe))[0] == recipe
        carry(recipe, original, apply=False)
    assert len(joint.opening) > 5


def test_a_model_without_weights_gets_a_plan() -> None:
    """A Llama of seven billion parameters on the meta device, chosen on two narrow layers."""
    tokens = {"input_ids": TOKENS, "labels": TOKENS}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32))
    original = stands_for(model, llama(2, 16, 2), tokens)
    plan = carry(Recipe(base="he_normal", residual_out="scaled"), original)
    assert plan["model.layers.31.mlp.down_proj.weight"].std == pytest.approx((2 / 11008) ** 0.5 / 64**0.5, rel=0.5)
    assert "of 6,738,415,616 parameters, 9 of 129 layers of weights, 4 of 64 residual adds" in str(original)
    with pytest.raises(RecipeError, match="meta device"):
        carry(Recipe(calibration="lsuv"), original)
    space = space_of(original.graph, lr_searched=False)
    assert not joint_space(space, space, measurable=False).has("calibration")
    assert all(recipe.calibration == "none" for recipe in joint_space(space, space, measurable=False).opening)
    listed = space_of(original.graph, lr_searched=False, recipes=["lsuv"])
    with pytest.raises(RecipeError, match=r"calibrated on batches.*to_empty"):
        joint_space(listed, listed, measurable=False)
    assert joint_space(listed, listed) is listed


def selected(model: nn.Module, proxy: nn.Module, **rest: Any) -> autoinit.Selection:
    options: dict[str, Any] = {"recipes": ["orthogonal", "he_normal", "lsuv"], "executor": "sequential", "seed": 1}
    options |= {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9)}
    return autoinit.select(model, DATA, proxy=proxy, budget=autoinit.Budget(steps=3000), **(options | rest))


def deep(width: int, layers: int = 12) -> nn.Module:
    torch.manual_seed(0)
    return mlp(width, layers)


def trained(model: nn.Module, steps: int = 400) -> float:
    """Returns the mean loss of the last quarter of a plain training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    x, y = torch.tensor(DATA[0]), torch.tensor(DATA[1])
    losses = []
    for rows in torch.randint(len(y), (steps, 64), generator=torch.Generator().manual_seed(9)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-steps // 4 :]) / (steps // 4)


def test_what_wins_on_a_narrow_net_helps_the_wide_one() -> None:
    model, proxy = deep(96), deep(24)
    as_is = trained(deep(96))
    with unchanged(proxy):
        selection = selected(model, proxy)
    assert not selection.kept
    assert "measured on a proxy of 8,410 of 109,642 parameters" in selection.why
    assert set(selection.plan) == dict(model.named_parameters()).keys()
    assert selection.graph["0.weight"].shape == (96, 64)
    assert as_is > 1.5  # the deep net hardly trains by itself
    assert trained(model) < 0.5 * as_is


def test_a_dry_selection_changes_neither() -> None:
    model, proxy = deep(96), deep(24)
    with unchanged(model), unchanged(proxy):
        selection = selected(model, proxy, apply=False)
    autoinit.apply_(model, selection)
    assert all(name in selection.plan for name, _ in model.named_parameters())


def test_recipes_must_fit_both() -> None:
    model, proxy = deep(96), deep(24)
    with pytest.raises(RecipeError, match="sines"), unchanged(model), unchanged(proxy):
        selected(model, proxy, recipes=["siren"])
    with torch.device("meta"):
        bare = mlp(96, 12)
    with pytest.raises(RecipeError, match="meta device"):
        selected(bare, proxy)


def test_a_failing_carry_says_what_had_won() -> None:
    proxy = deep(24)
    original = stands_for(deep(96), proxy)
    selection = selected(deep(96), proxy, apply=False)
    other = dataclasses.replace(selection, recipe=Recipe(base="siren"))
    with pytest.raises(RecipeError) as caught:
        carried(other, original)
    assert "autoinit.apply_(model, autoinit.Recipe.from_json(" in caught.value.__notes__[0]
