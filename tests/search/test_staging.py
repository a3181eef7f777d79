"""Where a proxy stands for the model: candidates are searched on the proxy, and judged on the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.executors.choice import Choice
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import Recipe
from autoinit.search import staging
from autoinit.search.campaign import ProgressEvent
from autoinit.search.staging import Setup, timed
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def deep(width: int, layers: int = 12, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(0)
    parts = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(64, width), activation(), *parts, nn.Linear(width, 10))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def selected(model: nn.Module, proxy: nn.Module, **rest: Any) -> autoinit.Selection:
    options: dict[str, Any] = {"recipes": ["orthogonal", "he_normal", "lsuv"], "executor": "sequential", "seed": 1}
    options |= {"optimizer": sgd, "budget": Budget(steps=3000)}
    return autoinit.select(model, DATA, proxy=proxy, **(options | rest))


def trained(model: nn.Module, steps: int = 400) -> float:
    """Returns the mean loss of the last quarter of a plain training."""
    optimizer = sgd(model.parameters())
    x, y = torch.tensor(DATA[0]), torch.tensor(DATA[1])
    losses = []
    for rows in torch.randint(len(y), (steps, 64), generator=torch.Generator().manual_seed(9)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-steps // 4 :]) / (steps // 4)


def test_what_wins_on_a_narrow_net_and_on_the_wide_one_is_set() -> None:
    model, proxy = deep(96), deep(24)
    as_is = trained(deep(96))
    with unchanged(proxy):
        selection = selected(model, proxy)
    assert not selection.kept
    assert selection.headline.endswith("(sure).")
    assert "searched on a proxy of 8,410 of 109,642 parameters, 13 of 13 layers of weights" in str(selection)
    assert "searched on the proxy: " in str(selection)
    assert set(selection.plan) == dict(model.named_parameters()).keys()
    assert selection.graph["0.weight"].shape == (96, 64)
    assert selection.before[0].name == "0.weight"
    assert {curve.stage for curve in selection.curves} == {"final", "gate"}  # the proxy's are another model's
    fresh = deep(96)
    autoinit.apply_(fresh, selection.plan)
    assert all(one.equal(two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))
    assert as_is > 1.5  # the deep net hardly trains by itself
    assert trained(model) < 0.5 * as_is


GROWING = Recipe(base="he_normal", log2_gain=0.3)
"""A quarter more from each layer to the next: a blessing for a net of three layers, and ruin for thirty."""


@pytest.mark.parametrize("lr", [None, "search"])
def test_what_wins_on_a_shallow_net_and_harms_the_deep_one_is_not_set(lr: str | None) -> None:
    model, proxy = deep(32, 30), deep(32, 3)
    options = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.03), "lr": lr}
    alone = autoinit.select(
        deep(32, 3), DATA, recipes=[GROWING], budget=Budget(steps=3000), executor="sequential", seed=1, **options
    )
    assert not alone.kept, "else this test shows nothing"
    with unchanged(model), unchanged(proxy):
        selection = selected(model, proxy, recipes=[GROWING], **options)
    assert selection.kept
    assert selection.gain is None or selection.gain.estimate > 0
    assert {"final", "gate"} & set(selection.trials.stage)
    assert selection.lr == 0.03 or lr == "search"


def test_a_dry_selection_changes_neither() -> None:
    model, proxy = deep(96), deep(24)
    with unchanged(model), unchanged(proxy):
        selection = selected(model, proxy, apply=False)
    autoinit.apply_(model, selection)
    assert all(name in selection.plan for name, _ in model.named_parameters())


def test_recipes_must_fit_both() -> None:
    model, proxy = deep(96), deep(24)
    with pytest.raises(autoinit.RecipeError, match="sines"), unchanged(model), unchanged(proxy):
        selected(model, proxy, recipes=["siren"])
    with torch.device("meta"):
        bare = deep(96)
    with pytest.raises(autoinit.RecipeError, match="meta device"):
        selected(bare, proxy)


def test_a_model_on_the_meta_device_is_judged_on_its_proxy() -> None:
    with torch.device("meta"):
        bare = deep(96)
    selection = selected(bare, deep(24), recipes=["orthogonal", "he_normal"])
    assert selection.on_proxy
    assert not selection.applied
    assert selection.headline.endswith("(sure, of the proxy).")
    assert "gain, learning rate and steps are the proxy's" in str(selection)
    model = deep(96)
    as_is = trained(deep(96))
    autoinit.apply_(model, selection.plan)
    assert trained(model) < 0.5 * as_is


def test_of_a_rate_found_on_the_proxy_and_the_owners_own_the_model_tries_both() -> None:
    """The narrow net does best far above the rate that was given."""
    optimizer = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1e-3), "lr": "search"}
    selection = selected(deep(96, 4), deep(24, 4), recipes=["orthogonal"], budget=Budget(steps=8000), **optimizer)
    searched, finals = (selection.trials[selection.trials.stage == stage] for stage in ("search", "final"))
    for name in ("as_is", "orthogonal"):
        ran = searched[(searched.recipe == name) & (searched.state == "complete")].sort_values("score")
        if len(ran):
            assert ran.lr.iloc[0] > 2e-3
            assert {1e-3, ran.lr.iloc[0]} <= set(finals[finals.recipe == name].lr), name
    assert selection.lr in set(finals.lr)


def test_a_proxys_rate_is_not_the_models_where_nothing_was_judged() -> None:
    """Nothing beats the owner's weights on the proxy, so that the model is never trained."""
    bad = Recipe(base="he_normal", log2_gain=6.0)
    optimizer = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=1e-3), "lr": "search"}
    selection = selected(deep(48, 4), deep(24, 4), recipes=[bad], **optimizer)
    assert selection.kept
    assert set(selection.trials.stage) == {"search"}
    assert selection.lr == 1e-3
    assert not selection.lr_searched


def pressing(when: Callable[[ProgressEvent, int], bool]) -> tuple[Callable[[ProgressEvent], None], list[ProgressEvent]]:
    said: list[ProgressEvent] = []

    def progress(event: ProgressEvent) -> None:
        said.append(event)
        if when(event, len(said)) and not any(one.stage == "finishing" for one in said):
            raise KeyboardInterrupt

    return progress, said


@pytest.mark.parametrize("stage", ["search", "final", "gate"])
def test_ctrl_c_leads_to_a_gate_on_the_model(stage: str) -> None:
    model = deep(96)
    runs = {"search": 4, "final": 1, "gate": 1}[stage]
    count = 0

    def reached(event: ProgressEvent, _: int) -> bool:
        nonlocal count
        count += event.stage == stage
        return count == runs

    progress, said = pressing(reached)
    selection = selected(model, deep(24), progress=progress, recipes=["lsuv", "orthogonal", "he_normal"])
    assert selection.interrupted
    assert "Ctrl-C again stops" in next(event.message for event in said if event.stage == "finishing")
    assert [event.stage for event in said[-2:]] == ["gate", "gate"]
    assert selection.graph["0.weight"].shape == (96, 64)


def setups(seconds: float, pace: float) -> tuple[Setup, Setup, Meter]:
    benches = []
    for width in (16, 32):
        task = make_task(deep(width, 3), DATA, optimizer=sgd)
        benches.append(Bench(task, trace_task(task), task.preserved().__enter__(), 0))
    judge = Setup(benches[1])
    judge.time_steps = lambda meter: setattr(judge, "pace", pace)  # type: ignore[method-assign]
    return Setup(benches[0]), judge, Meter(budget=Budget(seconds=seconds))


def test_a_model_too_slow_for_any_gate_says_which_budget_would_do() -> None:
    setup, judge, meter = setups(seconds=10.0, pace=1.0)
    cannot = timed(setup, judge, meter)
    assert cannot is not None
    assert cannot.answer == "unsure"
    assert cannot.why.startswith("a step of the model itself takes 1.0 s, and the shortest gate on it")
    assert 'budget="' in cannot.remedy
    enough = float(cannot.remedy.split('"')[1].rstrip("s"))
    again = setups(seconds=enough, pace=1.0)
    assert timed(*again) is None
    assert timed(*setups(seconds=10.0, pace=100.0)) is None


def test_a_model_that_has_no_room_is_said_before_anything_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(bench: Bench) -> Any:
        if bench.task.model[0].out_features == 96:  # type: ignore[index,union-attr]
            raise torch.OutOfMemoryError("Tried to allocate 7.00 GiB")
        return 1, 100.0, 2

    monkeypatch.setattr(staging, "fastest_threads", no_memory)
    model, proxy = deep(96), deep(24)
    with unchanged(model), unchanged(proxy):
        selection = selected(model, proxy, budget="20s")
    assert (selection.kept, selection.answer, len(selection.trials)) == (True, "unsure", 0)
    assert "the model itself cannot be trained here" in selection.why
    assert "Tried to allocate 7.00 GiB" in selection.why


def test_a_slow_model_gets_more_of_the_time() -> None:
    _, judge, meter = setups(seconds=100.0, pace=10.0)
    meter.pace(0.01)
    usual = Schedule.of(meter.left())
    judge.pace = 1000.0
    assert staging._leaving_enough(usual, judge, meter) == usual
    judge.pace = 6.0
    some = staging._leaving_enough(usual, judge, meter)
    assert staging.LEAST_SEARCHED < some.search_until < usual.search_until
    judge.pace = 0.1
    assert math.isclose(staging._leaving_enough(usual, judge, meter).search_until, staging.LEAST_SEARCHED)


def test_a_job_alone_is_planned_at_the_pace_that_it_has_alone() -> None:
    """As on a device, where replayed steps are several times as fast as the plain ones that were timed first."""
    probes = {}
    for alone in (None, 100.0, 800.0):
        meter = Meter(budget=Budget(seconds=3.0))
        meter.pace(1 / 100)
        choice = Choice(Sequential(None), 1, "", pace=2e4, alone=alone)  # type: ignore[arg-type]
        probes[alone] = staging._schedule(meter, choice, meter.left()).rungs[-1]
    assert probes[None] == probes[100.0] <= 3 * 100 / 8
    assert 6 * probes[None] < probes[800.0] <= 3 * 800 / 8
