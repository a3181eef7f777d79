"""A search beside weights that train ends where it costs more than it can find; one that may rescue never does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from databases import stored_trials
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN
from autoinit.recipes.space import Space, space_of
from autoinit.search import prospects
from autoinit.search.campaign import Campaign, ProgressEvent
from autoinit.search.funnel import search
from autoinit.search.prospects import nothing_left
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
DEAR = "nothing is left to find that is worth its cost"


def easy() -> nn.Sequential:
    """Returns a network that trains at once."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU(),
                         nn.Linear(32, 10))  # fmt: skip


def stuck() -> nn.Sequential:
    """Returns a network that stands still."""
    torch.manual_seed(0)
    hidden = [layer for _ in range(14) for layer in (nn.Linear(64, 64), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def narrow() -> nn.Sequential:
    """Returns a network that trains, and sooner from larger weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    return model


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


Make = Callable[..., Campaign]


@pytest.fixture
def campaign_of() -> Iterator[Make]:
    """Makes campaigns that are closed at the end."""
    open_ = []

    def make(model: nn.Module, optimizer: Any, steps: int = 600, training_steps: float | None = 400) -> Campaign:
        task = make_task(model, DATA, optimizer=optimizer)
        graph = trace_task(task)
        preserved = task.preserved()
        bench = Bench(task, graph, preserved.__enter__(), seed=0)
        open_.append(preserved)
        meter, schedule = Meter(budget=Budget(steps=steps)), Schedule.of(steps)
        return Campaign(bench, Sequential(bench), meter, schedule, training_steps=training_steps)

    yield make
    for preserved in reversed(open_):
        preserved.__exit__(None, None, None)


def space(campaign: Campaign, **options: Any) -> Space:
    return space_of(campaign.bench.graph, **{"lr_searched": False, **options})


def test_beside_weights_that_train_a_short_training_is_not_searched_for(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), adam)
    found = search(campaign, space(campaign))
    assert [trial.candidate.recipe for trial in campaign.trials] == [OWN]
    assert campaign.meter.steps < 0.03 * 600
    assert found.champion is None
    assert found.nobody is not None
    assert not found.nobody.open
    assert "what is left to find is worth less than its cost" in found.nobody.why
    assert campaign.ended == DEAR


def test_where_the_training_is_long_the_same_search_goes_on(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), adam, steps=1200, training_steps=1_000_000)
    search(campaign, space(campaign))
    assert len(campaign.trials) > 10


def test_a_rescue_has_the_whole_budget_however_short_the_training(campaign_of: Make) -> None:
    runs = []
    for length in (100, 1_000_000):
        campaign = campaign_of(stuck(), sgd, training_steps=length)
        found = search(campaign, space(campaign))
        assert found.verdict is not None
        assert found.verdict.state == "win"
        assert campaign.left_over is None
        runs.append([trial.candidate for trial in campaign.trials if trial.stage == "search"])
    assert abs(len(runs[0]) - len(runs[1])) <= 2, "the short one has looked at the owner's weights once more"


def test_a_budget_of_trials_alone_and_a_proxy_end_nothing(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), adam, training_steps=None)
    campaign.meter = Meter(budget=Budget(trials=6))
    search(campaign, space(campaign))
    assert sum(trial.stage == "search" for trial in campaign.trials) == 6
    campaign = campaign_of(easy(), adam)
    campaign.spares = False
    search(campaign, space(campaign))
    assert campaign.left_over is None


def test_what_is_listed_and_learning_rates_are_wanted_whatever_they_cost(campaign_of: Make) -> None:
    names = ["he_normal", "orthogonal", "lecun_normal"]
    campaign = campaign_of(easy(), adam)
    search(campaign, space(campaign, recipes=names))
    assert {trial.candidate.recipe.base for trial in campaign.trials if trial.candidate.recipe != OWN} == set(names)
    campaign = campaign_of(easy(), adam)
    search(campaign, space(campaign, lr_searched=True))
    assert len({trial.candidate.lr_step for trial in campaign.trials}) > 1


def test_weights_that_begin_slowly_are_looked_at_again_before_all_others(campaign_of: Make) -> None:
    """Of slow SGD the first eight steps do not tell; sixteen do, and the trial stays that of eight."""
    campaign = campaign_of(easy(), lambda p: torch.optim.SGD(p, lr=0.02))
    search(campaign, space(campaign))
    assert campaign.further is not None
    assert campaign.further.steps == 16
    (own,) = campaign.trials
    assert own.curve is not None
    assert own.curve.steps == 8
    assert campaign.further.losses[:8] == own.curve.losses
    assert campaign.left_over is not None
    assert own.spent < campaign.meter.steps < 30


def test_a_leader_whose_lead_does_not_pay_for_the_gate_does_not_come_there(
    campaign_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = nothing_left
    monkeypatch.setattr("autoinit.search.rounds.nothing_left", lambda *_: False)
    monkeypatch.setattr("autoinit.search.explore.nothing_left", lambda *_: False)
    monkeypatch.setattr("autoinit.search.finals.nothing_left", real)
    campaign = campaign_of(narrow(), adam, training_steps=60)
    found = search(campaign, space(campaign))
    assert {trial.stage for trial in campaign.trials} == {"search"}
    assert found.nobody is not None
    assert "worth less than its cost" in found.nobody.why
    others = [trial for trial in campaign.trials if trial.state == "complete" and trial.candidate.recipe != OWN]
    assert all(trial.reason for trial in others)


def test_who_is_in_a_hurry_has_the_gate(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), adam)
    campaign.run(campaign.jobs("search", [(autoinit.judging.trials.Candidate(OWN), "search")], 8))
    assert nothing_left(campaign, 100.0)
    campaign.meter.hurry()
    assert not nothing_left(campaign, 100.0)


def test_an_unknown_length_is_what_makes_the_budget_its_usual_share(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), adam, steps=500, training_steps=None)
    ahead = prospects._ahead(campaign, 50.0)
    assert (ahead.training, ahead.assumed) == (10_000, True)
    assert ahead.steps > 50 + 6 * ahead.gate
    known = campaign_of(easy(), adam, steps=500, training_steps=30)
    assert prospects._ahead(known, 0.0).gate == 30


def test_a_search_that_ends_so_leaves_no_trial_of_the_storage_running(campaign_of: Make, tmp_path: Path) -> None:
    campaign = campaign_of(easy(), adam)
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    search(campaign, space(campaign), storage=url, study_name="short")
    trials = stored_trials(url, "short")
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    spared = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert all("worth its cost" in trial.user_attrs["reason"] for trial in spared)


def test_what_failed_or_diverged_is_no_weights_that_train(campaign_of: Make) -> None:
    campaign = campaign_of(stuck(), sgd)
    campaign.run(campaign.jobs("search", [(autoinit.judging.trials.Candidate(OWN), "search")], 8))
    seen: list[Curve | None] = [None, Curve((math.nan,), diverged_at=1)]
    for again in seen:
        assert not nothing_left(campaign, 100.0, lambda steps, enough, again=again: again)


@pytest.mark.parametrize("steps", [160, 600])
def test_the_answer_says_what_it_was_and_what_would_tell(steps: int) -> None:
    events: list[ProgressEvent] = []
    options = {"budget": autoinit.Budget(steps=steps), "training_steps": 500, "progress": events.append}
    selection = autoinit.select(easy(), DATA, optimizer=adam, **options)
    assert (events[-1].stage, events[-1].message) == ("finishing", DEAR)
    assert events[-1].done < 0.2
    assert (selection.kept, selection.answer, selection.remedy) == (True, "no better", "")
    assert selection.cost.steps < 25
    assert DEAR in selection.cost.early
    assert "worth less than its cost" in str(selection) or "only a rescue is believed" in str(selection)


@pytest.mark.parametrize("length", [None, 100_000])
def test_a_budget_that_shows_rescues_only_names_the_one_that_shows_more(length: int | None) -> None:
    budget = autoinit.Budget(steps=160)
    selection = autoinit.select(easy(), DATA, optimizer=adam, budget=budget, training_steps=length)
    assert (selection.answer, selection.remedy) == ("unsure", "Budget(steps=1000) looks at smaller effects")
    assert selection.cost.steps < 25


def test_a_search_decides_alike_on_any_number_of_processes() -> None:
    answers = []
    for executor in ("sequential", "processes"):
        selection = autoinit.select(
            easy(),
            DATA,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.02),
            budget=autoinit.Budget(steps=1200),
            training_steps=8000,
            executor=executor,
            concurrency=None if executor == "sequential" else 2,
        )
        answers.append((selection.why, selection.cost.steps, list(selection.trials.score)))
    assert answers[0] == answers[1]


def test_a_search_that_has_ended_does_not_go_on_with_the_owners_weights_alone(campaign_of: Make) -> None:
    """The next round of them alone is cheap, and would pay."""
    campaign = campaign_of(easy(), adam, training_steps=3000)
    search(campaign, space(campaign))
    assert campaign.left_over is not None
    assert [trial.curve.steps for trial in campaign.trials if trial.curve] == [8]


def test_weights_that_begin_too_slowly_to_be_seen_have_the_whole_budget(campaign_of: Make) -> None:
    campaign = campaign_of(easy(), lambda p: torch.optim.SGD(p, lr=0.003))
    search(campaign, space(campaign))
    assert campaign.left_over is None
    assert campaign.further is not None
    assert campaign.further.steps == 32, "twice as far costs more than a tenth of the search"
    assert campaign.meter.done() > 0.5
