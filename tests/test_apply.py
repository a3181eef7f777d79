from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import ByHand
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from zoo import ZOO

import autoinit
from autoinit.apply import apply_plan
from autoinit.drawing import fills, memory
from autoinit.drawing.memory import Memory
from autoinit.errors import ArgumentError, AutoInitError, DataError, ModelError, PlanMismatchError, RecipeError
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.catalogue import NAMED
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.tracing import trace

DIGITS = load_digits()
X = torch.tensor(DIGITS.data / 16, dtype=torch.float32)
Y = torch.tensor(DIGITS.target)
BATCH = (X[:64], Y[:64])


def mlp(width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class ReluRNN(nn.Module):
    """The rows of a digit, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(8, 16, nonlinearity="relu", batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.unflatten(1, (8, 8)))[0][:, -1])


def selu() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.SELU(), nn.Linear(32, 32), nn.SELU(), nn.Linear(32, 10))


TRANSFORMERS = dict.fromkeys(("gpt2", "zero_residual", "fixup", "t_fixup", "deepnorm", "admin", "mimetic"))


def adapted() -> nn.Module:
    """A trained layer with a low-rank adapter beside it, under a new head."""
    return nn.Sequential(ByHand(BATCH[0].shape[1], 20), nn.ReLU(), nn.Linear(20, 10))


def trained() -> nn.Module:
    """A network with three units that are silent on all rows."""
    model = mlp()
    nn.init.constant_(next(one for one in model.modules() if isinstance(one, nn.Linear)).bias[:3], -100.0)
    return model


def shorter() -> dict[str, torch.Tensor]:
    """Its weights without the last two rows of its head."""
    torch.manual_seed(0)
    state = trained().state_dict()
    return {name: value[:-2] if len(value) == 10 else value for name, value in state.items()}


HOMES: dict[str, str] = {
    **dict.fromkeys(TRANSFORMERS, "encoder_post_ln"),
    "dcgan": "cnn_bn",
    "adaln_zero": "dit",
    "multi_task": "actor_critic",
    "siren": "siren",
    "dynamical_isometry": "tanh_mlp",
    "chrono": "lstm",
    "fluctuation_driven": "spiking",
}
"""Where a recipe belongs that is not for every network; those of no model of the zoo are built above."""


def at_home(name: str) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Returns a fresh model that a recipe is for, its data, and what else `apply_` takes."""
    torch.manual_seed(0)
    if NAMED[name].adapter != "same":
        return adapted(), BATCH, {}
    if NAMED[name].inherited:
        return trained(), BATCH, {"checkpoint": shorter()} if NAMED[name].rows != "same" else {}
    if name in HOMES:
        case = ZOO[HOMES[name]]()
        return case.model, case.batch, {"step": case.loss}
    return {"selu": selu, "irnn": ReluRNN}.get(name, mlp)(), BATCH, {}


@pytest.mark.parametrize("name", [name for name, recipe in NAMED.items() if recipe.growth == "none"])
def test_same_seed_same_bits_on_a_fresh_instance(name: str) -> None:
    (first, data, rest), (second, _, _), (third, _, _) = (at_home(name) for _ in range(3))
    before = weights(first)
    plan = autoinit.apply_(first, name, data, seed=3, **rest)
    assert plan == autoinit.apply_(second, name, data, seed=3, **rest)
    assert same(weights(first), weights(second))
    autoinit.apply_(third, plan)
    assert same(weights(first), weights(third))
    assert same(weights(first), before) == (name == "as_is")
    assert all(bool(tensor.isfinite().all()) for tensor in weights(first).values() if tensor.is_floating_point())


@pytest.mark.parametrize("name", sorted({*HOMES, "selu", "irnn"} - {"dynamical_isometry"}))
def test_a_recipe_for_other_networks_is_refused_and_nothing_changes(name: str) -> None:
    model, rows = ZOO["tanh_mlp"]().model, torch.randn(4, 6)
    with pytest.raises(RecipeError, match=rf"'{name}' is for networks with .* Use "), unchanged(model):
        autoinit.apply_(model, name, rows)


def test_another_seed_gives_other_weights() -> None:
    first, second = mlp(), mlp()
    autoinit.apply_(first, "he_normal", BATCH, seed=0)
    autoinit.apply_(second, "he_normal", BATCH, seed=1)
    assert not torch.equal(first[0].weight, second[0].weight)


def test_a_member_has_the_recipe_and_other_numbers() -> None:
    first, second, again = mlp(), mlp(), mlp()
    plan = autoinit.apply_(first, "he_normal", BATCH)
    member = autoinit.apply_(second, plan, member=1)
    assert (member.recipe, member.drawn_on) == (plan.recipe, "cpu")
    assert member["0.weight"] == plan["0.weight"]
    assert not torch.equal(first[0].weight, second[0].weight)
    autoinit.apply_(again, member)
    assert same(weights(second), weights(again))


WITHOUT_RANDOM_NUMBERS = frozenset({
    "as_is", "zeros", "constant", "identity", "hadamard",
    "zero_residual", "label_prior", "class_means", "gradinit", "metainit", "nio",  # of the owner's own draw
    "multi_task",
    "pissa", "olora", "eva", "lora_ga", "corda", "rows_mean", "rows_zero",  # of trained weights
})  # fmt: skip
"""Recipes of which a plan has no random number: every member would be the same."""


@pytest.mark.parametrize("name", [name for name, recipe in NAMED.items() if recipe.growth == "none"])
def test_each_recipe_has_members_or_says_why_not(name: str) -> None:
    (model, data, rest), (other, _, _), (zeroth, _, _) = (at_home(name) for _ in range(3))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*kept as drawn by your own code")
        if name in WITHOUT_RANDOM_NUMBERS:
            with pytest.raises(ArgumentError, match="member=2 would be the same as every other"):
                autoinit.apply_(model, name, data, member=2, **rest)
            return
        autoinit.apply_(model, name, data, member=2, **rest)
        autoinit.apply_(other, name, data, member=2, **rest)
    autoinit.apply_(zeroth, name, data, **rest)
    assert same(weights(model), weights(other))
    assert not same(weights(model), weights(zeroth))


def test_the_weights_have_the_std_of_the_plan() -> None:
    model = mlp(width=256)
    plan = autoinit.apply_(model, "he_normal", BATCH)
    weight = model[2].weight
    tolerance = 5 * plan["2.weight"].std / math.sqrt(2 * weight.numel())
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 256), abs=tolerance)
    assert weight.std().item() != pytest.approx(1 / math.sqrt(256), abs=tolerance)
    assert model[2].bias.abs().max() == 0


def test_a_parameter_s_draw_does_not_depend_on_the_rest_of_the_model() -> None:
    small, large = mlp(), nn.Sequential(*mlp(), nn.ReLU(), nn.Linear(10, 10))
    autoinit.apply_(small, "he_normal", BATCH)
    autoinit.apply_(large, "he_normal", BATCH)
    assert torch.equal(small[0].weight, large[0].weight)


def test_global_random_states_stay() -> None:
    model = mlp()
    before = torch.get_rng_state()
    autoinit.apply_(model, "lsuv", BATCH)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["orthogonal", "lsuv"])
def test_a_saved_plan_gives_the_same_bits(tmp_path: Path, name: str) -> None:
    model, fresh = mlp(), mlp()
    autoinit.apply_(model, name, BATCH, seed=5).save(tmp_path / "plan.json")
    autoinit.apply_(fresh, tmp_path / "plan.json")
    assert same(weights(model), weights(fresh))


def test_kept_and_rescaled_fills_keep_a_fresh_instance_s_own_draw() -> None:
    model = mlp()
    plan = resolve(Recipe(head="eighth"), trace(model, BATCH))
    fresh = mlp()
    before = weights(fresh)
    autoinit.apply_(fresh, plan)
    assert torch.equal(fresh[4].weight, before["4.weight"] / 8)
    assert torch.equal(fresh[0].weight, before["0.weight"])


def test_lsuv_reaches_unit_variance_and_its_plan_holds_the_factors() -> None:
    model = mlp()
    plan = autoinit.apply_(model, "lsuv", BATCH)
    hidden = model[0](BATCH[0])
    assert hidden.std().item() == pytest.approx(1, abs=0.02)
    assert plan["0.weight"].factor != 1.0
    assert "(lsuv)" in plan["0.weight"].reason


def test_lsuv_aims_at_the_recipe_s_gain() -> None:
    model = mlp()
    autoinit.apply_(model, Recipe(base="orthogonal", log2_gain=1.0, calibration="lsuv"), BATCH)
    assert model[0](BATCH[0]).std().item() == pytest.approx(2, abs=0.04)


def test_without_data_the_module_tree_is_read() -> None:
    model = mlp()
    autoinit.apply_(model, "he_normal")
    assert model[2].weight.std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.1)


def test_a_calibration_without_data_is_refused() -> None:
    model = mlp()
    with unchanged(model), pytest.raises(RecipeError, match=r"calibrated on data\. Pass data="):
        autoinit.apply_(model, "lsuv")


def test_frozen_and_tied_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(17, 16)
            self.body = nn.Linear(16, 16)
            self.head = nn.Linear(16, 17, bias=False)
            self.head.weight = self.embed.weight
            self.body.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.body(self.embed(x))))

    model = Tied()
    bias = model.body.bias.clone()
    tokens = (X[:8] * 16).long()
    plan = autoinit.apply_(model, "truncated_normal_002", (tokens, tokens))
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.body.bias, bias)
    assert not model.body.bias.requires_grad
    assert "frozen" in plan["body.bias"].reason
    assert model.embed.weight.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("parametrization", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_parametrized_weights_are_set_or_kept_and_never_silently_missed(parametrization: object) -> None:
    model = nn.Sequential(parametrization(nn.Linear(64, 32)), nn.Tanh(), nn.Linear(32, 10))  # type: ignore[operator]
    before = model[0].weight.detach().clone()
    plan = autoinit.apply_(model, "he_normal", BATCH)
    fill = plan["0.weight"]
    if fill.untouched:
        assert "parametrization fixes its scale" in fill.reason
        assert torch.equal(model[0].weight, before)
    else:
        assert model[0].weight.std().item() == pytest.approx(fill.std, rel=0.1)


def test_half_precision_is_the_cast_of_the_same_draw() -> None:
    single, half = mlp(), mlp().to(torch.bfloat16)
    plan = autoinit.apply_(single, "he_normal", BATCH)
    apply_plan(half, plan)
    assert torch.equal(half[0].weight, single[0].weight.to(torch.bfloat16))


def test_wrappers_are_looked_through() -> None:
    plain = mlp()
    wrapped = nn.DataParallel(copy.deepcopy(plain))
    plan = autoinit.apply_(plain, "he_normal", BATCH)
    autoinit.apply_(wrapped, plan)
    assert torch.equal(wrapped.module[0].weight, plain[0].weight)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Linear(64, 32)), "the model has no 2.weight, 2.bias, 4.weight, 4.bias"),
        (nn.Sequential(*mlp(), nn.Linear(10, 2)), "the plan says nothing about 5.weight, 5.bias"),
        (mlp(width=16), r"shapes differ: 0.weight \(plan \(32, 64\), model \(16, 64\)\)"),
    ],
)
def test_a_plan_that_does_not_fit(model: nn.Module, said: str) -> None:
    plan = autoinit.apply_(mlp(), "he_normal", BATCH)
    with unchanged(model), pytest.raises(PlanMismatchError, match=said):
        autoinit.apply_(model, plan)


@pytest.mark.parametrize("what", ["he_norml", "nowhere.json", 3])
def test_bad_arguments_leave_the_model_alone(what: object) -> None:
    model = mlp()
    with unchanged(model), pytest.raises(AutoInitError):
        autoinit.apply_(model, what, BATCH)  # type: ignore[arg-type]


def test_remembered_draws_have_the_same_bits() -> None:
    memory = Memory()
    model, fresh = mlp(), mlp()
    plan = resolve(Recipe(base="orthogonal", log2_gain=0.3), trace(model, BATCH), seed=2)
    for _ in range(2):
        apply_plan(model, plan, memory)
    assert len(memory) == 3
    apply_plan(fresh, plan)
    assert same(weights(model), weights(fresh))


def test_a_rescaling_plan_is_not_applied_twice() -> None:
    model, fresh = mlp(), mlp()
    before = model[4].weight.clone()
    plan = autoinit.apply_(model, Recipe(head="eighth"), BATCH)
    autoinit.apply_(model, plan)
    assert torch.equal(model[4].weight, before / 8)
    other = fresh[4].weight.clone()
    autoinit.apply_(fresh, plan)
    assert torch.equal(fresh[4].weight, other / 8)


def test_the_padding_row_of_an_embedding_stays_zero() -> None:
    model = nn.Sequential(nn.Embedding(10, 4, padding_idx=3), nn.Flatten(), nn.Linear(20, 2))
    tokens = torch.randint(0, 10, (6, 5))
    autoinit.apply_(model, Recipe(embedding="small"), (tokens, torch.randint(0, 2, (6,))))
    assert not model[0].weight[3].any()
    assert model[0].weight[2].any()


class Skipgram(nn.Module):
    """Two names for one table, the first of which knows nothing of padding; a bag beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 4))
        self.after = nn.ModuleDict({"lookup": nn.Embedding(10, 4, padding_idx=3)})
        self.after["lookup"].weight = self.table
        self.bag = nn.EmbeddingBag(12, 4, padding_idx=0)

    def forward(self, tokens: Tensor) -> Tensor:
        return (self.after["lookup"](tokens).mean(1) + self.bag(tokens)) @ self.table.T


@pytest.mark.parametrize("embedding", ["small", "same"])
def test_the_padding_row_stays_zero_under_any_name_of_its_table(embedding: Any) -> None:
    model, tokens = Skipgram(), torch.randint(0, 10, (6, 5))
    plan = autoinit.apply_(model, Recipe(base="normal", embedding=embedding), (tokens, tokens[:, 0]))
    assert plan["table"].distribution == "normal"
    assert not model.table[3].any()
    assert model.table[2].any()
    assert not model.bag.weight[0].any()


def test_a_calibration_takes_a_one_shot_iterator() -> None:
    model = mlp()
    autoinit.apply_(model, "lsuv", iter([BATCH]))
    assert model[0](BATCH[0]).std().item() == pytest.approx(1, abs=0.02)


def test_a_calibration_sees_training_mode_and_always_the_same_dropout() -> None:
    def factors(training: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.5), nn.ReLU(), nn.Linear(32, 10)).train(training)
        torch.manual_seed(int(training))  # what the generators hold must not matter
        return [fill.factor for fill in autoinit.apply_(model, "lsuv", BATCH).fills]

    assert factors(True) == factors(False)


def test_a_plan_file_may_have_any_name(tmp_path: Path) -> None:
    model, fresh = mlp(), mlp()
    autoinit.apply_(model, "he_normal", BATCH).save(tmp_path / "init.plan")
    autoinit.apply_(fresh, str(tmp_path / "init.plan"))
    assert same(weights(model), weights(fresh))


def test_meta_parameters_are_passed_over() -> None:
    with torch.device("meta"):
        model = mlp()
    plan = autoinit.apply_(model, "he_normal")
    assert isinstance(plan, Plan)
    assert model[0].weight.is_meta


def test_a_label_prior_counts_all_of_the_data() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=50)
    model = mlp()
    with torch.no_grad():
        model[4].weight.zero_()
    autoinit.apply_(model, "label_prior", loader)
    expected = torch.bincount(Y, minlength=10) / len(Y)
    torch.testing.assert_close(model(X[:1]).softmax(-1)[0], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(RecipeError, match="'label_prior' is for networks with an output bias"):
        autoinit.apply_(model, "label_prior", loader, loss=lambda output, target: output.square().mean())


def test_centring_leaves_a_label_prior() -> None:
    model = mlp()
    plan = autoinit.apply_(model, Recipe(head_bias="label_prior", calibration="lsuv_centred"), (X, Y))
    frequencies = torch.bincount(Y, minlength=10) / len(Y)
    torch.testing.assert_close(model[4].bias.softmax(0), frequencies, atol=0.02, rtol=0)
    assert plan["0.bias"].values
    assert "(lsuv_centred)" in plan["0.bias"].reason


class RectifiedBranches(nn.Module):
    """x + relu(W·h): zero there would never train."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
        self.up = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(up(x).tanh()).relu()
        return self.head(x)


@pytest.mark.parametrize("name", ["zero_residual", "fixup", "hadamard"])
def test_a_branch_that_ends_in_a_relu_is_not_set_to_zero(name: str) -> None:
    model = RectifiedBranches()
    plan = autoinit.apply_(model, name, BATCH)
    assert any("3 of 3 branches end in a ReLU" in note for note in plan.notes)
    assert all(bool(down.weight.any()) for down in model.down)
    torch.nn.functional.cross_entropy(model(X[:64]), Y[:64]).backward()
    if name != "fixup":  # whose head is zero
        assert all(bool(down.weight.grad.any()) for down in model.down)


def test_a_head_before_a_relu_is_not_set_to_zero() -> None:
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1), nn.ReLU())
    autoinit.apply_(model, Recipe(head="zero"), (X[:64], Y[:64].float()[:, None]))
    assert bool(model[2].weight.any())


def test_gates_stay_where_their_other_bias_is_frozen() -> None:
    model = nn.Sequential()
    model.lstm = nn.LSTM(8, 5, batch_first=True)
    model.lstm.bias_ih_l0.requires_grad_(False)

    def step(model: nn.Module, x: Tensor) -> Tensor:
        return model.lstm(x)[0].square().mean()

    before = weights(model)
    for recipe in (Recipe(recurrent="orthogonal_forget"), Recipe(base="as_is", recurrent="chrono")):
        plan = autoinit.apply_(model, recipe, X[:64].unflatten(1, (8, 8)), step=step)
        assert "must stay" in plan["lstm.bias_hh_l0"].reason
    assert torch.equal(before["lstm.bias_hh_l0"], model.lstm.bias_hh_l0)


def test_recipes_that_would_do_nothing_are_refused() -> None:
    bare = nn.LSTM(8, 5, batch_first=True, bias=False)
    with pytest.raises(RecipeError, match="with biases"):
        autoinit.apply_(bare, "chrono", X[:64].unflatten(1, (8, 8)), step=lambda m, x: m(x)[0].square().mean())


def test_a_folder_called_as_an_alias_is_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rezero").mkdir()
    with pytest.raises(RecipeError, match="'zero_residual' is for networks with residual branches"):
        autoinit.apply_(mlp(), "rezero", BATCH)


def test_a_layer_without_the_scheme_s_activation_gets_he_and_says_so() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.SELU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    plan = autoinit.apply_(model, "selu", BATCH)
    assert plan["2.weight"].std == pytest.approx(math.sqrt(2 / 32))
    assert plan["2.weight"].reason.startswith("He (relu is no SELU): std = √2/√32")
    model[1] = nn.Softplus()
    model[3] = nn.Tanh()
    assert "softplus has no critical point" in autoinit.apply_(model, "edge_of_chaos", BATCH)["0.weight"].reason


def test_biases_follow_the_scheme_of_their_own_weight() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    plan = autoinit.apply_(model, Recipe(rules=(("hidden", "edge_of_chaos"),)), BATCH)
    assert plan["2.bias"].distribution == "normal"
    assert plan["0.bias"].untouched
    plan = autoinit.apply_(model, Recipe(base="he_normal", rules=(("output", "as_is"),)), BATCH)
    assert plan["4.bias"].untouched


def test_admin_undoes_its_fold_in_the_learning_rates() -> None:
    case = ZOO["encoder_post_ln"]()
    plan = autoinit.apply_(case.model, "admin", case.batch, step=case.loss)
    folded = [fill for fill in plan.fills if "(admin)" in fill.reason]
    assert folded
    for fill in folded:
        assert (fill.lr_adam, fill.lr_sgd) == (pytest.approx(fill.factor), pytest.approx(fill.factor**2))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((torch.randn(64, 9), Y[:64]), "the model cannot take a batch of"),
        ((X[:64].long(), Y[:64]), "the model cannot take a batch of"),
        ((X[:64], Y[:64] + 90), "label|class"),
    ],
)
def test_data_that_the_model_cannot_take(data: tuple[Tensor, Tensor], said: str) -> None:
    model = mlp()
    with pytest.raises(DataError, match=said), unchanged(model):
        autoinit.apply_(model, "he_normal", data)
    with pytest.raises(DataError, match=said):
        trace(model, data)


@pytest.mark.parametrize("name", ["within_layer", "lsuv", "lsuv_centred", "gradinit"])
def test_a_calibration_measures_on_finite_values_only(name: str) -> None:
    wild = X[:64].clone()
    wild[3, 5] = math.nan
    model = mlp()
    with pytest.raises(DataError, match="NaN"), unchanged(model):
        autoinit.apply_(model, name, (wild, Y[:64]))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"0\.weight"):
        autoinit.apply_(model, name, BATCH)
    with pytest.raises(ModelError, match="meta device"):
        autoinit.apply_(mlp().to("meta"), name, BATCH)


@pytest.mark.parametrize("seed", [-1, 1.5, None, 2**70, "a", True])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    model = mlp()
    with pytest.raises(ArgumentError, match="seed must be a whole number"), unchanged(model):
        autoinit.apply_(model, "he_normal", BATCH, seed=seed)


def test_a_scripted_module_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(mlp())
    with pytest.raises(ModelError, match="scripted module"):
        autoinit.apply_(scripted, "he_normal", BATCH)


def test_a_plan_says_where_it_keeps_to_the_owners_draw() -> None:
    plan = autoinit.apply_(mlp(), Recipe(log2_gain=1.0), BATCH)
    assert "another instance gets its own one" in str(plan)
    assert "another instance" not in str(autoinit.apply_(mlp(), "he_normal", BATCH))


def test_a_tied_head_has_a_bias_and_a_reason() -> None:
    case = ZOO["tied_characters"]()
    plan = autoinit.apply_(case.model, "he_normal", case.batch, step=case.loss)
    (tied,) = (fill for fill in plan.fills if fill.role == "embedding")
    assert "it is the head as well" in tied.reason


class Filter(nn.Module):
    """A two-dimensional Fourier layer of complex weights."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, modes, modes, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.rfft2(x)
        made = torch.zeros_like(seen)
        kept = seen[:, :, : self.modes, : self.modes]
        made[:, :, : self.modes, : self.modes] = torch.einsum("bixy,ioxy->boxy", kept, self.weight)
        return torch.fft.irfft2(made, s=x.shape[-2:])


def operator() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 24, 1), Filter(24, 5), nn.GELU(), Filter(24, 5), nn.GELU(), nn.Conv2d(24, 1, 1))


FIELDS = (torch.randn(16, 1, 12, 12), torch.randn(16, 1, 12, 12))


@pytest.mark.parametrize("name", ["he_normal", "xavier_uniform", "truncated_normal", "orthogonal", "lsuv", "sparse"])
def test_complex_weights_are_drawn_with_half_of_the_variance_in_each_part(name: str) -> None:
    model = operator()
    plan = autoinit.apply_(model, name, FIELDS)
    for at in (1, 3):
        fill, weight = plan[f"{at}.weight"], model[at].weight.detach()
        assert fill.std is not None
        assert weight.abs().square().mean().sqrt().item() == pytest.approx(fill.std, rel=0.03)
        for part in (weight.real, weight.imag):
            assert part.square().mean().item() == pytest.approx(fill.std**2 / 2, rel=0.06)
        both = torch.stack((weight.real.flatten(), weight.imag.flatten()))
        assert abs(torch.corrcoef(both)[0, 1].item()) < 0.05  # √(1/14,400) = 0.008


def test_each_frequency_of_a_fourier_layer_keeps_its_second_moment() -> None:
    """He's formula for GELU, whose gain the plan names: what a mode gets out is that times what went in."""
    model = operator()
    plan = autoinit.apply_(model, "he_normal", FIELDS)
    x = torch.randn(64, 24, 12, 12)
    before, after = torch.fft.rfft2(x)[..., :5, :5], torch.fft.rfft2(model[1](x))[..., 1:5, 1:5]
    ratio = after.abs().square().mean() / before.abs().square().mean()
    assert ratio.item() == pytest.approx(24 * plan["1.weight"].std ** 2, rel=0.15)


def test_complex_draws_are_the_same_again_and_the_plan_gives_them() -> None:
    one, other = operator(), operator()
    plan = autoinit.apply_(one, "he_normal", FIELDS)
    autoinit.apply_(other, plan)
    assert one[1].weight.equal(other[1].weight)
    assert not one[1].weight.equal(one[3].weight)
    wide = operator()
    wide[1].weight = nn.Parameter(wide[1].weight.to(torch.cdouble))
    autoinit.apply_(wide, plan)
    assert wide[1].weight.dtype == torch.cdouble


def test_a_search_over_a_model_with_complex_weights_runs() -> None:
    torch.manual_seed(0)
    x = torch.randn(160, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), Filter(4, 3), nn.GELU(), nn.Conv2d(4, 1, 1))
    selection = autoinit.select(model, (x, x.roll(1, -1)), lr=1e-3, budget=autoinit.Budget(steps=300))
    states = selection.trials.state.value_counts()
    assert set(states.index) <= {"complete", "pruned"}, selection.trials[["recipe", "state", "reason"]]


def test_a_model_with_complex_weights_is_recommended_something() -> None:
    torch.manual_seed(0)
    x = torch.randn(160, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), Filter(4, 3), nn.GELU(), nn.Conv2d(4, 1, 1))
    assert autoinit.recommend(model, (x, x.roll(1, -1)), lr=1e-3).recipes


def test_a_drawn_plan_says_by_what_it_was_drawn() -> None:
    plan = autoinit.apply_(nn.Linear(4, 2), "he_normal")
    assert plan.drawn_with == f"autoinit {autoinit.__version__}, torch {torch.__version__}, cpu"


@pytest.mark.parametrize("base", ["orthogonal", "as_is"])
def test_what_a_calibration_has_drawn_is_not_drawn_once_more(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large weights, which nothing remembers on a CPU, are drawn before the calibration and after it."""
    torch.manual_seed(0)
    x = torch.randn(32, 12)
    model = nn.Sequential(
        nn.Linear(12, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    )
    model[3].requires_grad_(False)
    buffers = [buffer.clone() for buffer in model.buffers()]
    start = copy.deepcopy(model)
    draws: list[str] = []
    draw = fills._draw
    monkeypatch.setattr(memory, "CALIBRATED", 0)
    monkeypatch.setattr(
        fills, "_draw", lambda tensor, fill, *rest: draws.append(fill.name) or draw(tensor, fill, *rest)
    )
    plan = autoinit.apply_(model, Recipe(base=base, calibration="lsuv"), (x, x[:, :1]))
    assert draws == ["0.weight", "5.weight"] * (2 if base == "orthogonal" else 0)
    assert all(one.equal(other) for one, other in zip(model.buffers(), buffers, strict=True))
    apply_plan(start, plan)
    assert all(one.equal(other) for one, other in zip(model.parameters(), start.parameters(), strict=True))
    assert model[0].weight.grad is None
