from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autoinit
from autoinit import Budget, Selection
from autoinit.errors import AutoInitError, BudgetError, DataError, DeviceError, ModelError, OptimizerError, StepError
from autoinit.executors.sequential import Sequential
from autoinit.judging.gate import Gain
from autoinit.recipes.names import title
from autoinit.search.campaign import ProgressEvent
from autoinit.selector import STOPPED

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def deep_tanh(width: int = 32, layers: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(layers - 2) for layer in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), *hidden, nn.Linear(width, 10))


def small_mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.03, momentum=0.9)


@pytest.fixture(scope="module")
def rescued() -> tuple[Selection, nn.Sequential, nn.Sequential]:
    """A selection on a net that does not train by itself, the net after it, and a copy from before."""
    model = deep_tanh()
    before = copy.deepcopy(model)
    return autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=2400)), model, before


def long_loss(model: nn.Sequential, steps: int = 300) -> float:
    """The loss of a plain training that the package has no part in."""
    x, y = torch.tensor(DATA[0]), torch.tensor(DATA[1])
    optimizer = sgd(model.parameters())
    generator = torch.Generator().manual_seed(99)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return nn.functional.cross_entropy(model(x), y).item()


def test_a_net_that_would_not_train_learns(rescued: tuple[Selection, nn.Sequential, nn.Sequential]) -> None:
    selection, model, before = rescued
    assert not selection.kept
    assert selection.gain is not None
    assert selection.gain.high < math.log(0.9)
    assert long_loss(copy.deepcopy(model)) < 0.5 * long_loss(copy.deepcopy(before))


def test_the_saved_plan_gives_a_fresh_instance_the_same_bits(
    rescued: tuple[Selection, nn.Sequential, nn.Sequential], tmp_path: Path
) -> None:
    selection, model, before = rescued
    selection.save(tmp_path / "init.json")
    for what in (tmp_path / "init.json", selection, selection.plan):
        fresh = copy.deepcopy(before)
        autoinit.apply_(fresh, what)
        for ours, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert json.loads((tmp_path / "init.json").read_text())["provenance"]["kept"] is False


def test_what_a_selection_holds(rescued: tuple[Selection, nn.Sequential, nn.Sequential]) -> None:
    selection, _, _ = rescued
    assert "from the model's own weights the loss" in selection.why
    assert selection.lr == pytest.approx(0.03)
    assert selection.cost.steps <= 1.1 * 2400
    assert selection.cost.trials == (selection.trials.stage != "gate").sum()
    assert selection.trials.recipe[0] == "as_is"
    assert {"search", "final"} <= set(selection.trials.stage)
    assert next(iter(selection.graph)) == "0.weight"


def test_what_a_rescue_saves_is_told_beside_what_it_took(
    rescued: tuple[Selection, nn.Sequential, nn.Sequential], tmp_path: Path
) -> None:
    selection, _, _ = rescued
    payback = selection.payback
    assert payback is not None
    assert payback.at_least
    assert payback.length == selection.gain.steps
    assert payback.pairs == selection.gain.pairs
    assert f"saves  at least {payback.steps} of the first {payback.length} steps" in str(selection)
    assert f"the search took {selection.cost.steps:.0f}" in str(selection)
    selection.save(tmp_path / "whole.json", full=True)
    assert Selection.load(tmp_path / "whole.json").payback == payback
    provenance = json.loads((tmp_path / "whole.json").read_text())["provenance"]
    assert provenance["payback"]["steps"] == payback.steps
    assert provenance["training_steps"] is None


def test_a_search_without_a_budget_has_a_twentieth_of_the_training(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": sgd, "recipes": ["he_normal"], "executor": "sequential", "apply": False}
    batches = list(zip(*(torch.as_tensor(part).split(64) for part in DATA), strict=True))
    selection = autoinit.select(small_mlp(), batches, epochs=20_400 / len(batches), **options)
    assert 600 < selection.cost.steps <= 1.1 * 1020
    assert selection.cost.training_steps == pytest.approx(20_400)
    assert "budget: 5 % of a training of 20,400 steps" in str(selection)
    if selection.kept:
        assert selection.payback is None
    least = autoinit.select(small_mlp(), DATA, training_steps=100, **options)
    assert "the least that an answer takes, 1,000 steps: 5 % of a training of 100 steps would be 5" in str(least)
    least.save(tmp_path / "whole.json", full=True)
    assert Selection.load(tmp_path / "whole.json").cost == least.cost


def test_print_is_a_table_worth_reading(rescued: tuple[Selection, nn.Sequential, nn.Sequential]) -> None:
    selection, _, _ = rescued
    drawn = str(selection)
    assert drawn.startswith("From your own weights the loss stays at 2.3")
    assert f"\n  chose  {title(selection.recipe)}\n" in drawn
    for word in (
        "(sure).",
        "gain   training loss × 0.",
        "held-back loss ×",
        "cost",
        "training steps",
        "own weights",
        "searched:",
    ):
        assert word in drawn


def test_everything_but_the_weights_is_as_it_was() -> None:
    model = deep_tanh(layers=4)
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    with unchanged(model):
        selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=450), apply=False)
    assert "frozen" in selection.plan["0.bias"].reason


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("call", [1, 4, 40])
def test_nothing_changes_when_it_fails(error: type[BaseException], call: int) -> None:
    model = small_mlp()
    calls = itertools.count()

    def fail(output: Tensor, target: Tensor) -> Tensor:
        if next(calls) >= call:
            raise error("now")
        return nn.functional.cross_entropy(output, target)

    with unchanged(model):
        try:
            selection = autoinit.select(model, DATA, loss=fail, optimizer=sgd, budget=Budget(steps=450))
        except (error, AutoInitError):
            return
    assert selection.kept
    assert "now" in selection.why or selection.interrupted


@pytest.mark.parametrize("fails", [False, True])
def test_what_ran_the_jobs_is_closed_however_it_ends(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Sequential, "close", lambda executor: closed.append(executor))

    def report(event: ProgressEvent) -> None:
        if fails and event.stage == "search":
            raise RuntimeError("now")

    with pytest.raises(RuntimeError, match="now") if fails else contextlib.nullcontext():
        autoinit.select(
            small_mlp(), DATA, optimizer=sgd, budget=Budget(steps=200), executor="sequential", progress=report
        )
    assert len(closed) == 1


@pytest.mark.parametrize("stage", ["reading", "timing"])
def test_ctrl_c_before_the_search_says_in_a_line_that_nothing_was_done(stage: str) -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.stage == stage:
            raise KeyboardInterrupt

    model = small_mlp()
    with unchanged(model), pytest.raises(KeyboardInterrupt, match=STOPPED) as stopped:
        autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=200), progress=interrupt)
    assert stopped.value.__suppress_context__, "one traceback is shown, and not two"


def test_ctrl_c_in_the_first_training_keeps_the_weights_and_says_so() -> None:
    calls = itertools.count()

    def step(model: nn.Module, batch: Any) -> Tensor:
        if next(calls) == 12:  # of the owner's weights, after what reads and times the model
            raise KeyboardInterrupt
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    model = small_mlp()
    with unchanged(model):
        selection = autoinit.select(model, DATA, optimizer=sgd, step=step, budget=Budget(steps=200))
    assert (selection.interrupted, selection.kept, len(selection.trials)) == (True, True, 0)
    assert selection.why == "interrupted by Ctrl-C; no other candidate had been tried yet"


def test_a_rate_beside_which_none_was_tried_is_not_called_the_best() -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.stage == "search" and event.done > 0:  # after the owner's weights at the rate in the middle
            raise KeyboardInterrupt

    selection = autoinit.select(small_mlp(), DATA, lr="search", budget=Budget(steps=2400), progress=interrupt)
    assert (len(selection.trials), selection.interrupted, selection.lr_searched) == (1, True, False)
    assert "Train with lr" not in str(selection)
    assert "1 trial\n" in str(selection)


def test_one_ctrl_c_returns_the_best_so_far() -> None:
    model = deep_tanh()
    seen = []

    def interrupt_once(event: ProgressEvent) -> None:
        seen.extend([event] if event.stage == "search" else [])
        if len(seen) == 6 and event.stage == "search":
            raise KeyboardInterrupt

    selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=1200), progress=interrupt_once)
    assert selection.interrupted
    assert selection.why.startswith("interrupted by Ctrl-C; ")
    assert (selection.trials.stage != "gate").sum() == 6


def test_the_model_s_own_weights_stay_where_nothing_wins() -> None:
    model = small_mlp()
    with unchanged(model):
        # The owner's weights, and a recipe that hinders learning.
        bad = autoinit.Recipe(log2_gain=-8.0)
        selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=450), recipes=[bad])
    assert selection.kept
    assert selection.recipe.key == "as_is"
    assert all(fill.untouched for fill in selection.plan.fills)


def test_all_candidates_diverging_is_said() -> None:
    model = small_mlp()
    with unchanged(model):
        wild = autoinit.Recipe(log2_gain=30.0)
        selection = autoinit.select(
            model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=1e10), budget=Budget(steps=450), recipes=[wild]
        )
    assert selection.kept
    assert "diverged or failed" in selection.why
    assert "the model's own weights diverge as well" in selection.why


def test_an_optimizer_that_cannot_train_half_precision_is_told_from_weights_that_cannot_be_trained() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10)).half()
    recipes = ["he_normal", "xavier_uniform"]
    selection = autoinit.select(model, DATA, optimizer=torch.optim.AdamW, budget=Budget(steps=450), recipes=recipes)
    assert selection.kept
    assert "the model's own weights diverge as well" in selection.why
    assert "trained parameters are float16, in which small numbers of AdamW round to zero" in selection.why
    assert "autocast=torch.float16" in selection.why


def test_same_seed_same_selection() -> None:
    def chosen() -> tuple[str, list[float]]:
        selection = autoinit.select(deep_tanh(layers=5), DATA, optimizer=sgd, budget=Budget(steps=450), seed=3)
        return selection.plan.recipe.key, selection.trials.score.tolist()

    assert chosen() == chosen()


def test_only_named_parameters_change() -> None:
    model = deep_tanh()
    before = copy.deepcopy(model)
    selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=600), exclude="22.*")
    assert selection.plan["22.weight"].reason == "excluded by name"
    assert torch.equal(model[22].weight, before[22].weight)


def test_learning_rate_is_searched_when_no_optimizer_is_given() -> None:
    selection = autoinit.select(small_mlp(), DATA, budget=Budget(steps=2100))
    assert selection.lr is not None
    assert math.log(selection.lr / 1e-3, 10**0.5) == pytest.approx(
        round(math.log(selection.lr / 1e-3, 10**0.5)), abs=1e-6
    )
    assert selection.trials.lr.nunique() == 5


def test_regression_with_a_scheduler_clipping_and_accumulation() -> None:
    torch.manual_seed(0)
    rows = load_breast_cancer()
    x = torch.tensor((rows.data - rows.data.mean(0)) / rows.data.std(0), dtype=torch.float32)
    y = torch.tensor(rows.target, dtype=torch.float32)[:, None]
    model = nn.Sequential(nn.Linear(30, 16), nn.Tanh(), nn.Linear(16, 1))

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        total = torch.zeros(())
        for part_x, part_y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
            loss = nn.functional.mse_loss(model(part_x), part_y) / 2
            if torch.is_grad_enabled():
                loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        return total

    def optimizer(parameters: Any) -> tuple[torch.optim.Optimizer, object]:
        adam = torch.optim.Adam(parameters, lr=1e-2)
        return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=400)

    batches = [(x[i : i + 64], y[i : i + 64]) for i in range(0, 512, 64)]
    selection = autoinit.select(model, batches, step=step, optimizer=optimizer, budget=Budget(steps=450))
    assert set(selection.trials.state) <= {"complete", "pruned"}
    assert len(selection.graph) == 4


def test_the_least_budget_rescues_a_net_that_does_not_train() -> None:
    model = deep_tanh()
    before = long_loss(copy.deepcopy(model))
    selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=160))
    assert not selection.kept
    assert selection.cost.steps <= 160
    assert long_loss(model) < 0.5 * before


def test_a_short_search_tries_recipes_and_not_rates() -> None:
    """The owner's weights at five rates would leave next to nothing for others; who asks for rates gets them."""
    short = autoinit.select(deep_tanh(), DATA, budget=Budget(steps=300))
    assert len(set(short.trials.recipe)) > 4
    assert (set(short.trials.lr), short.lr, short.lr_searched) == ({1e-3}, 1e-3, False)
    assert "lr     0.001 (not searched)" in str(short)
    asked = autoinit.select(deep_tanh(), DATA, lr="search", budget=Budget(steps=300))
    assert len(set(asked.trials.lr)) == 5


def test_a_slow_step_is_told_what_budget_would_do() -> None:
    model = small_mlp()
    slow = model.register_forward_pre_hook(lambda module, inputs: time.sleep(0.1))
    started = time.perf_counter()
    selection = autoinit.select(model, DATA, optimizer=sgd, budget="10s")
    slow.remove()
    assert time.perf_counter() - started < 10
    assert selection.kept
    assert "a step takes 0.1 s" in selection.why
    assert selection.answer == "unsure"
    assert selection.remedy.startswith('budget="')


def test_seconds_are_kept() -> None:
    model = deep_tanh()
    started = time.perf_counter()
    autoinit.select(model, DATA, optimizer=sgd, budget=5)
    # The promise is a tenth; a shared machine is allowed to be slower than itself by another.
    assert time.perf_counter() - started < 6


def bad_labels() -> tuple[Any, Any]:
    return DATA[0], DATA[1] + 5


def nan_inputs() -> tuple[Any, Any]:
    x = DATA[0].copy()
    x[3, 3] = math.nan
    return x, DATA[1]


BAD: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], type[AutoInitError], str]] = {
    "no data": (small_mlp, {"data": []}, DataError, "empty|no batch"),
    "one batch": (
        small_mlp,
        {"data": [(torch.randn(8, 64), torch.zeros(8, dtype=torch.long))]},
        DataError,
        "one batch|1 batch",
    ),
    "nan": (small_mlp, {"data": nan_inputs()}, DataError, "finite|NaN"),
    "labels": (small_mlp, {"data": bad_labels()}, DataError, "out of range"),
    "shape": (small_mlp, {"data": (DATA[0][:, :60], DATA[1])}, DataError, "60"),
    "frozen": (lambda: small_mlp().requires_grad_(False), {}, ModelError, "no trainable parameter"),
    "detached": (
        small_mlp,
        {"loss": lambda out, y: nn.functional.cross_entropy(out.detach(), y)},
        ModelError,
        "gradient",
    ),
    "vector loss": (small_mlp, {"loss": lambda out, y: out.sum(1)}, StepError, "scalar"),
    "no optimizer": (small_mlp, {"optimizer": lambda p: None}, OptimizerError, "NoneType|None"),
    "budget": (small_mlp, {"budget": 0}, BudgetError, "positive"),
    "recipe": (small_mlp, {"recipes": ["he_norml"]}, autoinit.RecipeError, "Did you mean 'he_normal'"),
    "device": (small_mlp, {"device": "cuda:7"}, DeviceError, "cuda:7"),
    "seed": (small_mlp, {"seed": -1}, autoinit.ArgumentError, "Got -1"),
    "storage": (small_mlp, {"storage": "nonsense"}, autoinit.ArgumentError, "'nonsense' cannot be opened"),
    "glob": (small_mlp, {"exclude": "nothing.*"}, ModelError, "matches no parameter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error_and_leaves_the_model(case: str) -> None:
    make, arguments, kind, said = BAD[case]
    model = make()
    arguments = {"data": DATA, "optimizer": sgd, "budget": Budget(steps=450), **arguments}
    with unchanged(model), pytest.raises(kind, match=said):
        autoinit.select(model, arguments.pop("data"), **arguments)


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    autoinit.select(small_mlp(), DATA, optimizer=sgd, budget=Budget(steps=450), recipes=["he_normal"], progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert any("search  2 runs, leading: " in line for line in lines)
    assert "\r" not in captured.err
    assert "\x1b" not in captured.err


def test_a_seed_of_any_size() -> None:
    assert autoinit.select(small_mlp(), DATA, optimizer=sgd, budget=Budget(steps=450), seed=2**40).cost.steps > 0


def test_a_failing_gate_keeps_the_model() -> None:
    model = deep_tanh()
    stage = [""]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if stage[0] == "gate":
            raise torch.OutOfMemoryError("no memory left")
        return nn.functional.cross_entropy(output, target)

    def watch(event: ProgressEvent) -> None:
        stage[0] = event.stage

    with unchanged(model):
        selection = autoinit.select(
            model,
            DATA,
            loss=loss,
            optimizer=sgd,
            budget=Budget(steps=1200),
            progress=watch,
            executor="sequential",  # worker processes would not see the stage change
        )
    assert selection.kept
    assert "its gate failed (OutOfMemoryError: no memory left)" in selection.why


def test_an_error_of_the_progress_callback_is_the_caller_s() -> None:
    model = deep_tanh()

    def fail(event: ProgressEvent) -> None:
        if event.stage == "gate":
            raise ZeroDivisionError

    with unchanged(model), pytest.raises(ZeroDivisionError):
        autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=1200), progress=fail)


def test_a_proxy_is_searched_on_in_the_place_of_the_model() -> None:
    model, small = deep_tanh(layers=20), deep_tanh(layers=12)
    before = [p.clone() for p in model.parameters()]
    with unchanged(small):
        selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=2400), proxy=small)
    assert not selection.kept
    assert set(selection.plan) == {name for name, _ in model.named_parameters()}
    assert "searched on a proxy of" in selection.proxy
    assert not all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    again = deep_tanh(layers=20)
    autoinit.apply_(again, selection)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_proxy_of_another_kind_is_refused_before_anything_is_tried() -> None:
    model, other = deep_tanh(), small_mlp()
    with pytest.raises(ModelError, match="another kind than the model"), unchanged(model):
        autoinit.select(model, DATA, optimizer=sgd, budget=Budget(steps=600), proxy=other)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "shuffled"), [(128, False), (32, False), (397, False), (128, True)])
def test_a_dead_net_is_rescued_however_its_validation_rows_are_batched(size: int, shuffled: bool) -> None:
    """Of 397 rows in batches of 128 the last has 13, which once told as much as the other three."""
    x, y = torch.tensor(DIGITS.data / 16, dtype=torch.float32), torch.tensor(DIGITS.target)
    held = torch.arange(1400, 1797)
    held = held[torch.randperm(397, generator=torch.Generator().manual_seed(1))] if shuffled else held
    selection = autoinit.select(
        deep_tanh(),
        DataLoader(TensorDataset(x[:1400], y[:1400]), 32),
        val_data=DataLoader(TensorDataset(x[held], y[held]), size),
        optimizer=sgd,
        budget=Budget(steps=500),
        recipes=["orthogonal", "he_normal"],
        executor="sequential",
    )
    assert not selection.kept
    assert selection.why.startswith("from the model's own weights the loss stays at 2.3")
    assert selection.held_back is not None
    assert selection.held_back.high < 0


def test_the_verdict_does_not_depend_on_the_size_of_the_last_training_batch() -> None:
    """The loss of a batch of one row is mostly noise, and once weighed as much as that of a whole one."""
    x, y = torch.tensor(DIGITS.data / 16, dtype=torch.float32), torch.tensor(DIGITS.target)
    held = TensorDataset(x[1400:], y[1400:])

    def gains(count: int) -> tuple[str, Gain | None, Gain | None]:
        selection = autoinit.select(
            deep_tanh(),
            DataLoader(TensorDataset(x[:count], y[:count]), 64),
            val_data=DataLoader(held, 64),
            optimizer=sgd,
            budget=Budget(steps=400),
            recipes=["orthogonal"],
            executor="sequential",
        )
        return selection.why, selection.gain, selection.held_back

    assert gains(1280) == gains(1281) == gains(1300)


class TiedGPT(nn.Module):
    """A causal Transformer whose head is the table of its tokens, with PyTorch's default draw of it."""

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        self.body = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, codes: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(codes.shape[1])
        return self.head(self.norm(self.body(self.tokens(codes), src_mask=mask, is_causal=True)))


def test_a_better_first_guess_is_no_better_start() -> None:
    """Default embeddings begin far above a constant guess's loss; smaller ones lead until that is unlearned."""
    text = "".join(topics[name] for name in sorted(topics))[:40_000]
    codes = torch.tensor([min(ord(letter), 127) for letter in text]).reshape(-1, 40)
    selection = autoinit.select(
        TiedGPT(128),
        DataLoader(TensorDataset(codes[:, :-1], codes[:, 1:]), 32),
        loss=lambda output, target: nn.functional.cross_entropy(output.flatten(0, 1), target.flatten()),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        budget=Budget(steps=200),
        recipes=[autoinit.Recipe(embedding="small")],
        executor="sequential",
    )
    assert selection.kept
    assert selection.gain is not None
    assert selection.gain.high < math.log(0.6), "it is far ahead in the gate's short runs"
    assert "a lead tells who is sooner" in selection.why or "no better than a constant guess" in selection.why
    assert selection.remedy.endswith("looks at longer runs")
    assert str(selection).startswith("Your own weights are kept: cannot tell; Budget(steps=")
