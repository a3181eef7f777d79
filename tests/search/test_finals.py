from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Trial
from autoinit.probing.bench import Bench
from autoinit.recipes.names import title
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search import finals as module
from autoinit.search.campaign import Campaign
from autoinit.search.duel import duel
from autoinit.search.finals import Finals, NoChampion, finals, leader
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
GOOD, BAD = Candidate(Recipe(base="orthogonal")), Candidate(Recipe(log2_gain=-3.0))


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    """Ten tanh layers whose default weights are too small to learn soon, with 600 steps to spend."""
    torch.manual_seed(0)
    layers = [layer for _ in range(9) for layer in (nn.Linear(32, 32), nn.Tanh())]
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), *layers, nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed=0)
        yield Campaign(bench, Sequential(bench), Meter(budget=Budget(steps=600)), Schedule.of(600))


def try_all(campaign: Campaign, *candidates: Candidate, steps: int = 33) -> None:
    for candidate in candidates:
        campaign.run(campaign.jobs("search", [(candidate, "search")], steps))


def test_the_best_goes_to_the_gate_and_wins(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), BAD, GOOD)
    entered = finals(campaign, tune_lr=False)
    assert (entered.own, entered.champion) == (Candidate(OWN), GOOD)
    verdict = duel(campaign, entered, GOOD, campaign.bench.draw(GOOD.recipe))
    assert verdict is not None
    assert verdict.state == "win"
    assert verdict.gain.high < math.log(0.9)


def test_where_only_learning_rates_were_tried_that_is_said(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), Candidate(OWN, 1), Candidate(OWN, -1), steps=8)
    entered = finals(campaign, tune_lr=True)
    assert entered.nobody is not None
    assert entered.nobody.why.startswith("only learning rates were tried, 3 of them on the model's own weights: ")
    assert entered.nobody.why.endswith("the budget ended before another candidate could be tried")


def test_finals_and_gate_run_on_other_batch_orders_than_the_search(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), GOOD)
    finals(campaign, tune_lr=False)
    orders = {record.stage: record.seed for record in campaign.trials}
    assert orders["final"] != orders["search"]


def test_no_champion_where_nothing_beats_the_owner(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), BAD)
    entered = finals(campaign, tune_lr=False)
    assert entered.champion is None
    assert entered.nobody == NoChampion("the one candidate did not beat the model's own weights in the search")


def test_a_small_lead_in_very_short_probes_goes_no_further(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    try_all(campaign, Candidate(OWN), GOOD, steps=15)
    campaign.schedule = Schedule.of(150)
    own, good = (record.total for record in campaign.trials)
    monkeypatch.setattr(module, "EARLY_LEAD", own - good + 0.01)
    entered = finals(campaign, tune_lr=False)
    assert (entered.own, entered.champion) == (Candidate(OWN), None)
    assert entered.nobody is not None
    assert f"{title(GOOD.recipe)} led by {own - good:.2g} in score after 15 steps" in entered.nobody.why
    assert (entered.nobody.open, entered.nobody.longer) == (True, 2.0)
    assert "went on" in campaign.trials[1].reason
    assert (leader(campaign).champion, leader(campaign).nobody) == (None, entered.nobody)
    monkeypatch.setattr(module, "EARLY_LEAD", own - good)
    assert finals(campaign, tune_lr=False).champion == GOOD


@pytest.mark.parametrize(("steps", "lead", "gone"), [(15, 0.04, True), (15, 0.06, False), (16, 0.04, False)])
def test_how_large_a_lead_has_to_be_how_early(campaign: Campaign, steps: int, lead: float, gone: bool) -> None:
    try_all(campaign, Candidate(OWN), steps=steps)
    (own,) = campaign.trials
    assert own.score is not None
    better = dataclasses.replace(own.score, total=own.score.total - lead)
    campaign.trials.append(dataclasses.replace(own, number=1, candidate=GOOD, score=better))
    assert (leader(campaign).champion is None) == gone


def test_the_shortest_gate_is_evaluated_twice_a_run(campaign: Campaign) -> None:
    campaign.meter = Meter(budget=Budget(steps=150))
    campaign.schedule = Schedule.of(150)
    try_all(campaign, Candidate(OWN), GOOD)
    campaign.meter.steps = 65
    verdict = duel(campaign, finals(campaign, tune_lr=False), GOOD, campaign.bench.draw(GOOD.recipe))
    assert verdict is not None
    assert campaign.meter.steps <= 150
    runs = [record for record in campaign.trials if record.stage == "gate"]
    assert len(runs) == 6
    assert {len(record.curve.held_back) for record in runs if record.curve} == {2}


def test_all_diverged_is_said(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN))
    lost = Curve(losses=(2.3, math.nan), diverged_at=2)
    campaign.trials.append(Trial(1, "search", GOOD, 0, lost, campaign.score(lost, 33), "diverged", "not finite"))
    nobody = finals(campaign, tune_lr=False).nobody
    assert nobody is not None
    assert "every one of 1 candidates was vetoed, diverged or failed" in nobody.why
    assert not nobody.open


def test_finalists_try_their_neighbours_on_the_learning_rate_grid(campaign: Campaign) -> None:
    campaign.meter.budget = Budget(steps=6_000)
    try_all(campaign, Candidate(OWN), GOOD)
    finals(campaign, tune_lr=True)
    tried = {(r.candidate.recipe, r.candidate.lr_step) for r in campaign.trials if r.stage == "final"}
    assert {(recipe, step) for recipe in (OWN, GOOD.recipe) for step in (-1, 0, 1)} <= tried


def test_an_interrupted_search_sends_its_leader(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), GOOD)
    assert leader(campaign).champion == GOOD


def test_a_spent_budget_has_no_gate(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN), GOOD)
    campaign.meter.spend(steps=600)
    assert duel(campaign, Finals(Candidate(OWN), GOOD), GOOD, campaign.bench.draw(GOOD.recipe)) is None


def test_the_same_weights_do_not_win(campaign: Campaign) -> None:
    try_all(campaign, Candidate(OWN))
    verdict = duel(campaign, Finals(Candidate(OWN), Candidate(OWN)), Candidate(OWN), campaign.bench.draw(OWN))
    assert verdict is not None
    assert verdict.state == "loss"
    assert verdict.gain.estimate == 0.0
