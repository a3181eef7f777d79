from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.bench import Bench
from autoinit.budget import Budget, Meter, Schedule
from autoinit.campaign import Campaign
from autoinit.executors import WORKER_DIED, Sequential
from autoinit.recipe import Recipe
from autoinit.records import OWN, Candidate, Outcome, ranking
from autoinit.rounds import try_in_rounds, worth_rounds
from autoinit.task import make_task
from autoinit.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
BASES = ("he_normal", "xavier_normal", "lecun_normal", "truncated_normal", "orthogonal")
LISTED = [*(Recipe(base=base) for base in BASES), *(Recipe(base=base, log2_gain=-1.0) for base in BASES)]
CANDIDATES = [Candidate(recipe) for recipe in (OWN, *LISTED)]


def deep_tanh() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(9) for layer in (nn.Linear(32, 32), nn.Tanh())]
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), *layers, nn.Linear(32, 10))


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    task = make_task(deep_tanh(), DATA, optimizer=sgd)
    graph = trace_task(task)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed=0)
        yield Campaign(bench, Sequential(bench), Meter(budget=Budget(steps=2400)), Schedule.of(2400))


def test_all_are_looked_at_and_half_of_them_longer(campaign: Campaign) -> None:
    first, second, *_ = campaign.schedule.rungs
    try_in_rounds(campaign, CANDIDATES)
    steps = [(record.curve.steps, record.candidate) for record in campaign.records if record.curve]
    assert [candidate for length, candidate in steps if length == first] == CANDIDATES
    others = campaign.records[1:11]
    better = {record.candidate for record in sorted(others, key=lambda record: record.total)[:5]}
    assert {candidate for length, candidate in steps if length == second} == {*better, Candidate(OWN)}
    assert [record.reason.startswith("among the better half") for record in others] == [
        record.candidate in better for record in others
    ]
    assert sum("in the worse half at step" in record.reason for record in others) == 5


def test_the_last_round_has_the_owner_and_three_others_at_one_length(campaign: Campaign) -> None:
    try_in_rounds(campaign, CANDIDATES)
    last = [record for record in campaign.records if record.state == "complete"]
    assert len(last) == 4
    assert last[0].candidate == Candidate(OWN)
    assert len({record.curve.steps for record in last if record.curve}) == 1
    assert {record.candidate for record in ranking(campaign.records)} == {record.candidate for record in last}


def test_the_share_of_the_search_is_kept(campaign: Campaign) -> None:
    campaign.meter = Meter(budget=Budget(steps=600))
    campaign.schedule = Schedule.of(600)
    assert worth_rounds(campaign, len(CANDIDATES))
    try_in_rounds(campaign, CANDIDATES)
    assert campaign.meter.steps <= 1.1 * campaign.schedule.search_until * 600


@pytest.mark.parametrize(
    ("count", "budget", "worth"), [(11, 2400, True), (4, 2400, False), (11, 200, False), (60, 600, False)]
)
def test_few_candidates_and_small_budgets_are_not_worth_rounds(
    campaign: Campaign, count: int, budget: int, worth: bool
) -> None:
    campaign.meter = Meter(budget=Budget(steps=budget))
    campaign.schedule = Schedule.of(budget)
    assert worth_rounds(campaign, count) == worth


def test_nothing_is_tried_where_the_owner_s_training_fails(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequential, "run", lambda self, jobs, on_rung: [Outcome(None, 1.0, "it raised") for _ in jobs])
    try_in_rounds(campaign, CANDIDATES)
    assert [record.state for record in campaign.records] == ["failed"]


def test_a_worker_that_dies_of_the_owner_s_trial_is_given_another_try(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, died = Sequential.run, [True]

    def once(self: Sequential, jobs: Any, on_rung: Any) -> Any:
        return [Outcome(None, 1.0, f"{WORKER_DIED} (9)")] if died and died.pop() else run(self, jobs, on_rung)

    monkeypatch.setattr(Sequential, "run", once)
    try_in_rounds(campaign, CANDIDATES)
    assert campaign.records[0].state == "pruned"
    assert [record.number for record in campaign.records] == list(range(len(campaign.records)))


def test_a_listed_search_tells_its_study_one_trial_a_candidate(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    model = deep_tanh()
    selection = autoinit.select(
        model, DATA, optimizer=sgd, recipes=LISTED, budget=Budget(steps=2400), storage=url, study_name="listed"
    )
    study = optuna.load_study(study_name="listed", storage=url)
    assert len(study.trials) == len(CANDIDATES)
    assert [trial.state.name for trial in study.trials].count("COMPLETE") == 4
    assert not selection.kept
    assert set(selection.trials.recipe) == {candidate.recipe.key for candidate in CANDIDATES}
    assert math.isfinite(study.best_value)


def test_the_best_is_found_though_it_is_listed_last() -> None:
    """Eleven candidates that stand still, and one that learns: judged one by one, the budget ends before it."""
    dull = [Recipe(base=base, log2_gain=-gain) for base in BASES[:4] for gain in (2.0, 2.5, 3.0)][:11]
    selection = autoinit.select(
        deep_tanh(), DATA, optimizer=sgd, recipes=[*dull, Recipe(base="orthogonal")], budget=Budget(steps=400)
    )
    assert selection.recipe == Recipe(base="orthogonal")
