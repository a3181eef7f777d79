"""Members of an ensemble: independent draws of one choice, the same whenever they are drawn, or a clear refusal."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from adapted import ByHand
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autoinit
from autoinit.drawing.members import DRAWN_ADAPTERS, DRAWN_ROWS, FIXED, owner_drawn
from autoinit.drawing.starting import start_of, started
from autoinit.errors import ArgumentError, PlanMismatchError, RecipeError
from autoinit.initializers.draws import DRAWS
from autoinit.initializers.geometry import Geometry
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.adapters import ADAPTER_ROWS
from autoinit.recipes.inherited import NEW_ROWS, RENEWALS
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.tracing import trace

DIGITS = load_digits()
X = torch.tensor(DIGITS.data / 16, dtype=torch.float32)
Y = torch.tensor(DIGITS.target)
BATCH = (X[:128], Y[:128])
IMAGES = (X[:32].view(-1, 1, 8, 8), Y[:32])
SEQUENCES = (X[:32].view(-1, 8, 8), Y[:32])
PIXELS = (X[:8].view(-1, 64) * 15).long()  # 0 to 15: the pixels one after the other, as tokens


def mlp(width: int = 64) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


class Rows(nn.Module):
    """An LSTM that reads digits row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 24, num_layers=2, batch_first=True), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=64, n_embd=32, n_layer=1, n_head=2))


CASES: dict[str, tuple[Callable[[], nn.Module], Any, str | Recipe]] = {
    "mlp": (mlp, BATCH, "he_normal"),
    "mlp, structured draws": (mlp, BATCH, "orthogonal"),
    "mlp, calibrated": (mlp, BATCH, "lsuv"),
    "cnn with BatchNorm": (cnn, IMAGES, "delta_orthogonal"),
    "lstm": (Rows, SEQUENCES, "xavier_uniform"),
    "gpt2": (gpt2, [{"input_ids": PIXELS, "labels": PIXELS}], "truncated_normal_002"),
    "gpt2, queries and keys in pairs": (gpt2, [{"input_ids": PIXELS, "labels": PIXELS}], Recipe(attention="mimetic")),
}


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Returns a model as its owner's code draws it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def same(one: nn.Module, other: nn.Module) -> bool:
    others = state(other)
    return all(torch.equal(value, others[name]) for name, value in state(one).items())


def drawn(build: Callable[[], nn.Module], what: Any, data: Any = None, **options: Any) -> tuple[nn.Module, Plan]:
    """Returns a model that a plan or a recipe has set, and the plan; what is said of kept weights is passed over."""
    model = made(build)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*kept as drawn by your own code")
        return model, autoinit.apply_(model, what, data, **options)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.detach().flatten(), other.detach().flatten()]))[0, 1])


# Draws


@pytest.mark.parametrize("name", CASES)
def test_members_are_independent_draws_of_one_distribution(name: str) -> None:
    build, data, what = CASES[name]
    models = [drawn(build, what, data, member=member) for member in range(3)]
    for number, (first, plan) in enumerate(models):
        for second, other in models[number + 1 :]:
            ones, others = state(first), state(second)
            for fill in plan.fills:
                old, new = ones[fill.name], others[fill.name]
                if fill.distribution in FIXED:
                    continue
                assert not torch.equal(old, new)
                assert abs(correlation(old, new)) < 5 / math.sqrt(old.numel())
                assert (other[fill.name].std, other[fill.name].distribution) == (fill.std, fill.distribution)
                measured = fill.factor / other[fill.name].factor
                spread = 7 / math.sqrt(old.numel()) + 0.02
                assert measured * new.std().item() == pytest.approx(old.std().item(), rel=spread)
            assert {fill.name: (fill.lr_adam, fill.lr_sgd) for fill in plan.fills} == {
                fill.name: (fill.lr_adam, fill.lr_sgd) for fill in other.fills
            }


@pytest.mark.parametrize("name", CASES)
def test_member_0_is_the_draw_itself(name: str) -> None:
    build, data, what = CASES[name]
    (plain, plan), (zeroth, same_plan) = drawn(build, what, data, seed=3), drawn(build, what, data, seed=3, member=0)
    assert same(plain, zeroth)
    assert plan == same_plan
    again, applied = drawn(build, plan, member=0)
    assert same(plain, again)
    assert applied == plan


@pytest.mark.parametrize("name", CASES)
def test_a_member_is_the_same_in_any_order_and_from_its_own_plan(name: str, tmp_path: Path) -> None:
    build, data, what = CASES[name]
    _, plan = drawn(build, what, data, seed=1)
    later, member = drawn(build, plan, data, member=2)
    drawn(build, plan, data, member=1)
    sooner, _ = drawn(build, what, data, seed=1, member=2)
    assert same(later, sooner)
    plan.save(tmp_path / "plan.json")
    member.save(tmp_path / "member.json")
    assert same(later, drawn(build, tmp_path / "plan.json", data, member=2)[0])
    reopened, _ = drawn(build, str(tmp_path / "member.json"))
    assert same(later, reopened)
    assert Plan.load(tmp_path / "member.json") == member


def test_a_member_of_a_member_is_another_draw() -> None:
    _, plan = drawn(mlp, "he_normal", BATCH)
    second, member = drawn(mlp, plan, member=2)
    of_it, further = drawn(mlp, member, member=1)
    assert not same(of_it, second)
    assert not same(of_it, drawn(mlp, plan, member=1)[0])
    assert not same(of_it, drawn(mlp, plan, member=3)[0])
    assert [note for note in further.notes if note.startswith("Member")] == [
        "Member 2 of the draws under seed 0: other numbers of the same recipe.",
        f"Member 1 of the draws under seed {member.seed}: other numbers of the same recipe.",
    ]


def test_members_of_another_seed_are_others() -> None:
    assert not same(drawn(mlp, "he_normal", BATCH, member=1)[0], drawn(mlp, "he_normal", BATCH, seed=1, member=1)[0])


def test_learning_rates_of_a_member_are_those_of_the_choice() -> None:
    wide = functools.partial(mlp, 128)
    (first, plan), (third, member) = (drawn(wide, "mup", BATCH, member=number) for number in (0, 3))
    rates = [[group["lr"] for group in one.param_groups(model, 0.1)] for model, one in ((first, plan), (third, member))]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 1


def test_a_large_weight_is_another_in_each_of_its_pieces() -> None:
    def table() -> nn.Module:
        return nn.Sequential(nn.Embedding(2**13, 2**8), nn.Flatten(), nn.Linear(2**9, 2))

    data = (torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    one, other = (drawn(table, Recipe(embedding="small"), data, member=k)[0][0].weight.detach() for k in (0, 1))
    for half in (slice(0, 2**12), slice(2**12, None)):  # each is one stream
        assert abs(correlation(one[half], other[half])) < 5 / 2**10
    assert abs(correlation(one[: 2**12], other[2**12 :])) < 5 / 2**10


def test_a_member_without_memory_is_a_plan_for_one_that_has_it() -> None:
    with torch.device("meta"):
        empty = mlp()
    plan = autoinit.apply_(empty, "he_normal", member=2)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert same(drawn(mlp, plan)[0], drawn(mlp, "he_normal", member=2)[0])


@pytest.mark.parametrize("member", [-1, True, 2.0, "2", None])
@pytest.mark.parametrize("what", ["he_normal", "plan"])
def test_what_is_no_member_is_refused_and_nothing_changes(what: str, member: Any) -> None:
    model, plan = drawn(mlp, "he_normal", BATCH)
    with unchanged(model), pytest.raises(ArgumentError, match=r"member must be a whole number, 0 or more\. Got "):
        autoinit.apply_(model, plan if what == "plan" else what, member=member)


# A selection


def plain_deep() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)), nn.Linear(64, 10))


def test_members_of_a_selection(tmp_path: Path) -> None:
    model = made(plain_deep)

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)

    budget = autoinit.Budget(steps=200)
    selection = autoinit.select(
        model, (X, Y), optimizer=sgd, budget=budget, recipes=["orthogonal"], seed=1, recommender=False
    )
    assert not selection.kept
    assert same(model, drawn(plain_deep, selection, member=0)[0])
    third, plan = drawn(plain_deep, selection, (X, Y), member=3)
    selection.save(tmp_path / "choice.json")
    assert same(third, drawn(plain_deep, tmp_path / "choice.json", (X, Y), member=3)[0])
    assert plan.recipe == selection.recipe
    for name, fill in selection.plan.items():
        if fill.distribution not in FIXED:
            assert abs(correlation(model.get_parameter(name), third.get_parameter(name))) < 5 / math.sqrt(fill.size)


# What is measured


def test_a_calibrated_plan_is_measured_anew_for_each_member() -> None:
    (model, plan), (other, member) = (drawn(mlp, "lsuv", BATCH, member=number) for number in (0, 1))
    for one in (model, other):
        assert one[0](BATCH[0]).std().item() == pytest.approx(1, abs=0.02)  # type: ignore[index]
    assert member["2.weight"].factor != plan["2.weight"].factor
    assert member["2.weight"].factor == pytest.approx(plan["2.weight"].factor, rel=0.2)


@pytest.mark.parametrize("recipe", ["lsuv", Recipe(base="he_normal", head="class_means")])
def test_without_data_a_measured_plan_has_no_other_members(recipe: str | Recipe) -> None:
    model, plan = drawn(mlp, recipe, BATCH)
    said = (
        r"was measured on its own draw: another one is measured anew\. Pass data too: apply_\(model, plan, data, memb"
    )
    with unchanged(model), pytest.raises(RecipeError, match=said):
        autoinit.apply_(model, plan, member=1)
    assert same(model, drawn(mlp, plan, member=0)[0])


def test_a_head_in_closed_form_is_worked_out_on_each_body() -> None:
    recipe = Recipe(base="he_normal", head="class_means")
    _, plan = drawn(mlp, recipe, BATCH)
    member, _ = drawn(mlp, plan, BATCH, member=1)
    assert same(member, drawn(mlp, recipe, BATCH, member=1)[0])
    assert (member(BATCH[0]).argmax(1) == BATCH[1]).float().mean() > 0.5


def test_what_a_plan_leaves_alone_a_measured_member_leaves_alone_too() -> None:
    graph = trace(made(mlp), BATCH).restricted(exclude="0.*")
    plan = resolve("lsuv", graph)
    model = made(mlp)
    member = autoinit.apply_(model, plan, BATCH, member=1)
    assert torch.equal(model.get_parameter("0.weight"), made(mlp).get_parameter("0.weight"))
    assert member["0.weight"] == plan["0.weight"]
    assert "excluded by name" in member["0.weight"].reason


def test_a_measured_plan_is_refused_where_the_model_is_read_otherwise() -> None:
    _, plan = drawn(mlp, "lsuv", BATCH)
    fills = [dataclasses.replace(fill, std=fill.std and fill.std * 2) for fill in plan.fills]
    model = made(mlp)
    with unchanged(model), pytest.raises(PlanMismatchError, match="the model is read otherwise than when the plan was"):
        autoinit.apply_(model, dataclasses.replace(plan, fills=tuple(fills)), BATCH, member=1)


def test_the_owner_s_weights_are_not_rescaled_twice() -> None:
    recipe = Recipe(embedding="small", head="eighth", calibration="lsuv")
    model, plan = drawn(embedded, recipe, TOKENS)
    with (
        unchanged(model),
        pytest.raises(PlanMismatchError, match=r"2\.weight, 4\.weight would be rescaled once more\. F"),
    ):
        autoinit.apply_(model, plan, TOKENS, member=1)
    member, again = drawn(embedded, plan, TOKENS, member=1)
    assert same(member, drawn(embedded, recipe, TOKENS, member=1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoinit.apply_(member, again)
    assert same(member, drawn(embedded, recipe, TOKENS, member=1)[0])


def test_biases_that_were_measured_are_measured_anew() -> None:
    (_, plan), (model, member) = (drawn(mlp, "lsuv_centred", BATCH, member=number) for number in (0, 1))
    assert plan["0.bias"].values != member["0.bias"].values
    assert same(model, drawn(mlp, plan, BATCH, member=1)[0])


# What is kept


def embedded() -> nn.Module:
    return nn.Sequential(nn.Embedding(16, 8), nn.Flatten(), nn.Linear(512, 16), nn.ReLU(), nn.Linear(16, 10))


TOKENS = (PIXELS, Y[:8])
KEPT = (
    r"^0\.weight is kept as drawn by your own code, the same in all copies of one model: for each member, make its "
    r"model anew under another seed of torch's"
)


def test_what_is_kept_is_said_and_the_plan_says_it_too() -> None:
    model = made(embedded)
    with pytest.warns(UserWarning, match=KEPT) as told:
        plan = autoinit.apply_(model, "he_normal", TOKENS, member=1)
    assert [Path(one.filename).name for one in told] == ["test_members.py"]
    assert any(note.startswith("0.weight is kept as drawn by your own code") for note in plan.notes)
    with pytest.warns(UserWarning, match=KEPT):
        autoinit.apply_(made(embedded), drawn(embedded, "he_normal", TOKENS)[1], member=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoinit.apply_(made(embedded), "he_normal", TOKENS)  # member 0 is no member beside others


def test_models_made_anew_differ_in_what_is_kept() -> None:
    plan = drawn(embedded, "he_normal", TOKENS)[1]
    tables = []
    for member in (0, 1):
        model = made(embedded, seed=member)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            autoinit.apply_(model, plan, member=member)
        tables.append(model.get_parameter("0.weight"))
    assert abs(correlation(*tables)) < 5 / math.sqrt(128)


def test_rescaled_weights_are_the_owner_s_too() -> None:
    recipe = Recipe(embedding="small", head="eighth")
    said = r"^2\.weight, 2\.bias, 4\.weight and 1 more are kept as drawn by your own code"
    with pytest.warns(UserWarning, match=said):
        plan = autoinit.apply_(made(embedded), recipe, TOKENS, member=1)
    assert plan["4.weight"].factor == 1 / 8


def test_what_stays_on_purpose_is_not_complained_of() -> None:
    model = made(mlp)
    model.get_parameter("0.weight").requires_grad_(False)
    model.get_parameter("0.bias").requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = autoinit.apply_(model, "he_normal", BATCH, member=1)
    assert owner_drawn(model, plan) == []
    assert "frozen" in plan["0.weight"].reason


def test_norms_and_other_constants_are_not_complained_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        autoinit.apply_(made(cnn), "he_normal", IMAGES, member=1)


@pytest.mark.parametrize("what", ["as_is", "plan", Recipe(calibration="lsuv"), "hadamard"])
def test_members_that_would_all_be_alike_are_refused(what: str | Recipe) -> None:
    model = made(mlp)
    keeps, fixed = (
        "the plan keeps all weights as they are",
        "recipe 'hadamard residual_out=zero' draws nothing at random. Pass a rec",
    )
    said = fixed if what == "hadamard" else keeps
    choice = drawn(mlp, "as_is", BATCH)[1] if what == "plan" else what
    with unchanged(model), pytest.raises(ArgumentError, match=rf"^member=3 would be the same as every other: .*{said}"):
        autoinit.apply_(model, choice, BATCH, member=3)


# What comes from elsewhere


def adapted() -> nn.Module:
    return nn.Sequential(ByHand(64, 20), nn.ReLU(), ByHand(20, 20), nn.ReLU(), nn.Linear(20, 10).requires_grad_(False))


def test_adapters_of_a_recipe_are_drawn_anew_and_of_a_plan_refused() -> None:
    (first, plan), (second, _) = (drawn(adapted, "lora_orthogonal", BATCH, member=number) for number in (0, 1))
    assert not torch.equal(first.get_parameter("0.down.weight"), second.get_parameter("0.down.weight"))
    with pytest.raises(ArgumentError, match=r"from trained weights\. Load those .* data, seed=0, member=1\)"):
        autoinit.apply_(made(adapted), plan, BATCH, member=1)


@pytest.mark.parametrize("name", ADAPTER_ROWS)
def test_adapters_differ_among_members_or_are_refused(name: Any) -> None:
    """Those in `DRAWN_ADAPTERS`, and those that a formula draws, are the ones with random numbers."""
    recipe = Recipe(adapter=name)
    if name in DRAWN_ADAPTERS or ADAPTER_ROWS[name].drawn:
        assert not same(drawn(adapted, recipe, BATCH)[0], drawn(adapted, recipe, BATCH, member=1)[0])
        return
    with pytest.raises(ArgumentError, match="draws nothing at random"):
        drawn(adapted, recipe, BATCH, member=1)


@pytest.mark.parametrize("name", NEW_ROWS)
def test_new_rows_differ_among_members_or_are_refused(name: Any) -> None:
    recipe, old = (
        Recipe(rows=name),
        {key: value[:12] if len(value) == 16 else value for key, value in gpt2_state().items()},
    )
    batches = [{"input_ids": PIXELS, "labels": PIXELS}]
    if name in DRAWN_ROWS:
        one, other = (drawn(gpt2, recipe, batches, checkpoint=old, member=member)[0] for member in (0, 1))
        assert not same(one, other)
        assert torch.equal(one.transformer.wte.weight[:12], other.transformer.wte.weight[:12])  # type: ignore[union-attr,index]
        return
    with pytest.raises(ArgumentError, match="draws nothing at random"):
        drawn(gpt2, recipe, batches, checkpoint=old, member=1)


def gpt2_state() -> dict[str, Tensor]:
    return dict(made(gpt2).state_dict())


@pytest.mark.parametrize("name", RENEWALS)
def test_renewed_weights_are_drawn_anew(name: Literal["shrink_and_perturb", "redo"]) -> None:
    def stale() -> nn.Module:
        model = mlp()
        with torch.no_grad():
            model.get_parameter("0.bias")[:9] = -100.0
        return model

    recipe = Recipe(base="he_normal", renewal=name)
    assert not same(drawn(stale, recipe, BATCH)[0], drawn(stale, recipe, BATCH, member=1)[0])


def test_a_grown_network_says_how_to_get_another() -> None:
    wide = functools.partial(mlp, 96)
    model = made(wide)
    plan = autoinit.inherit_(model, made(mlp), BATCH)
    said = (
        r"from a source: every member would take after it alike\. Grow each by itself: inherit_\(model, source, noise"
    )
    with unchanged(model), pytest.raises(ArgumentError, match=said):
        autoinit.apply_(model, plan, BATCH, member=1)


def test_a_ticket_says_how_to_get_another() -> None:
    model = made(mlp)
    start = start_of(autoinit.ticket(model, BATCH, 0.5, method="random"))
    graph = dataclasses.replace(trace(model, BATCH), starts=(start.name,))
    plan = started(model, resolve(Recipe(start=start.name), graph), {start.name: start})
    said = rf"those of {start.name}: every member would start from the same\. Make another one for each: meta_learn\("
    with unchanged(model), pytest.raises(ArgumentError, match=said):
        autoinit.apply_(model, plan, BATCH, member=1)


@pytest.mark.parametrize("name", sorted(FIXED & {*DRAWS}) + sorted({*DRAWS} - FIXED))
def test_the_draws_without_random_numbers_are_known(name: str) -> None:
    one, other = (torch.empty(24, 8) for _ in range(2))
    for seed, tensor in enumerate((one, other)):
        DRAWS[name](
            tensor,
            Geometry((0,), (1,), slices=3 if name == "mimetic_qkv" else 1),
            0.5,
            torch.Generator().manual_seed(seed),
        )
    assert torch.equal(one, other) == (name in FIXED)
