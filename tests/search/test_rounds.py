from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from databases import stored_trials
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.executors.processes import WORKER_DIED
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import LONGEST_PROBE, Budget, Meter, Schedule
from autoinit.judging.score import Curve
from autoinit.judging.trials import Candidate, Job, Outcome, Trial, ranking
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import LR_STEPS, Space, space_of
from autoinit.search.campaign import Campaign
from autoinit.search.finals import leader
from autoinit.search.funnel import search
from autoinit.search.rounds import Rounds
from autoinit.task.snapshot import Snapshot
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

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


def run(campaign: Campaign, candidates: list[Candidate] = CANDIDATES) -> Rounds:
    rounds = Rounds.worth_it(campaign, candidates, proposes=False)
    assert rounds is not None
    rounds.run(candidates)
    return rounds


def steps_of(record: Trial) -> int:
    return record.curve.steps if record.curve is not None else 0


def test_all_are_looked_at_and_half_of_them_longer(campaign: Campaign) -> None:
    rounds = run(campaign)
    assert [record.candidate for record in campaign.trials] == CANDIDATES
    others = sorted(range(1, 11), key=lambda number: rounds.totals[number][8])
    assert {number for number, totals in rounds.totals.items() if 16 in totals} == {0, *others[:5]}
    for place, number in enumerate(others[5:], start=6):
        record = campaign.trials[number]
        assert (record.state, steps_of(record)) == ("pruned", 8)
        assert record.reason == f"number {place} of 10 at step 8, of which 5 went on"


def test_the_last_round_has_the_owner_and_three_others_at_one_length(campaign: Campaign) -> None:
    rounds = run(campaign)
    last = [record for record in campaign.trials if record.state == "complete"]
    assert len(last) == 4
    assert last[0].candidate == Candidate(OWN)
    assert len({steps_of(record) for record in last}) == 1
    assert {record.candidate for record in ranking(campaign.trials)} == {record.candidate for record in last}
    for record in last:
        assert rounds.totals[record.number][steps_of(record)] == record.total
        assert [steps for steps, _ in record.curve.held_back] == sorted(rounds.totals[record.number])  # type: ignore[union-attr]
    assert campaign.meter.steps == pytest.approx(1 + sum(record.spent for record in campaign.trials))
    assert len(campaign.bench.paused) <= 3, "of the last round but one; nothing goes on after the last"


def test_rounds_go_on_while_the_share_of_the_search_pays_for_them(campaign: Campaign) -> None:
    lengths = {}
    for budget in (400, 1000, 2400, 20_000):
        campaign.meter, campaign.trials, campaign.reference = Meter(budget=Budget(steps=budget)), [], None
        campaign.schedule = Schedule.of(budget)
        run(campaign)
        lengths[budget] = max(record.curve.steps for record in ranking(campaign.trials) if record.curve)
        assert campaign.meter.steps <= 1.1 * campaign.schedule.search_until * budget
    assert list(lengths.values()) == sorted(lengths.values())
    assert lengths[400] >= 16
    assert lengths[20_000] == LONGEST_PROBE


def test_where_trainings_cannot_go_on_they_begin_anew(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequential, "pauses", False)
    run(campaign)
    lengths = sorted({record.curve.steps for record in campaign.trials if record.curve})
    assert lengths[:2] == list(campaign.schedule.rungs[:2])
    last = [record for record in campaign.trials if steps_of(record) == lengths[-1]]
    assert all(record.spent > sum(lengths) for record in last)
    assert campaign.meter.steps == pytest.approx(sum(record.spent for record in campaign.trials))


def test_the_share_of_the_search_is_kept(campaign: Campaign) -> None:
    campaign.meter = Meter(budget=Budget(steps=600))
    campaign.schedule = Schedule.of(600)
    assert Rounds.worth_it(campaign, CANDIDATES, proposes=False)
    run(campaign)
    assert campaign.meter.steps <= 1.1 * campaign.schedule.search_until * 600


@pytest.mark.parametrize(
    ("count", "budget", "worth"), [(11, 2400, True), (4, 2400, False), (11, 200, False), (60, 600, False)]
)
def test_few_candidates_and_small_budgets_are_not_worth_rounds(
    campaign: Campaign, count: int, budget: int, worth: bool
) -> None:
    campaign.meter = Meter(budget=Budget(steps=budget))
    campaign.schedule = Schedule.of(budget)
    assert (Rounds.worth_it(campaign, (CANDIDATES * 6)[:count], proposes=False) is not None) == worth


def test_nothing_is_tried_where_the_owner_s_training_fails(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequential, "run", lambda self, jobs, on_rung: [Outcome(None, 1.0, "it raised") for _ in jobs])
    run(campaign)
    assert [record.state for record in campaign.trials] == ["failed"]


def test_a_worker_that_dies_of_the_owner_s_trial_is_given_another_try(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = Sequential.run, itertools.count()

    def deadly(self: Sequential, jobs: Any, on_rung: Any) -> Any:
        outcomes = list(original(self, jobs, on_rung))
        if next(calls) in (0, 3):  # the owner's first run, and the first of the second round
            outcomes[0] = Outcome(None, 1.0, f"{WORKER_DIED} (9)")
        return outcomes

    monkeypatch.setattr(Sequential, "run", deadly)
    run(campaign)
    assert campaign.trials[0].state == "complete"
    assert [record.number for record in campaign.trials] == list(range(11))


def test_a_listed_search_tells_its_study_one_trial_a_candidate(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    model = deep_tanh()
    selection = autoinit.select(
        model, DATA, optimizer=sgd, recipes=LISTED, budget=Budget(steps=2400), storage=url, study_name="listed"
    )
    trials = stored_trials(url, "listed")
    assert len(trials) == len(CANDIDATES)
    assert [trial.state.name for trial in trials].count("COMPLETE") == 4
    assert not selection.kept
    assert set(selection.trials.recipe) == {candidate.recipe.key for candidate in CANDIDATES}
    assert all(math.isfinite(trial.value) for trial in trials if trial.state.name == "COMPLETE")


def test_the_best_is_found_though_it_is_listed_last() -> None:
    """Eleven candidates that stand still, and one that learns: judged one by one, the budget ends before it."""
    dull = [Recipe(base=base, log2_gain=-gain) for base in BASES[:4] for gain in (2.0, 2.5, 3.0)][:11]
    selection = autoinit.select(
        deep_tanh(), DATA, optimizer=sgd, recipes=[*dull, Recipe(base="orthogonal")], budget=Budget(steps=400)
    )
    assert selection.recipe == Recipe(base="orthogonal")


def test_a_search_looks_at_all_known_recipes_before_it_proposes_others(campaign: Campaign) -> None:
    campaign.meter, campaign.schedule = Meter(budget=Budget(steps=4000)), Schedule.of(4000)
    space = space_of(campaign.bench.graph, lr_searched=False)
    search(campaign, space)
    mine = [record for record in campaign.trials if record.stage == "search"]
    count = 1 + len(space.opening)
    assert {record.candidate for record in mine[:count]} == known(space)
    assert len(mine) > count + 5
    assert {steps_of(record) for record in mine if record.state == "complete"} == {128}


@pytest.mark.parametrize("at", [16, 64])
def test_ctrl_c_in_a_round_leaves_the_one_before_as_it_was(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    perform = Bench.perform

    def interrupted(self: Bench, job: Any, on_rung: Any) -> Outcome:
        if job.steps == at and job.number:
            raise KeyboardInterrupt
        return perform(self, job, on_rung)

    monkeypatch.setattr(Bench, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(campaign)
    complete = [record for record in campaign.trials if record.state == "complete"]
    assert {steps_of(record) for record in complete} == {at // 2}
    assert len(complete) >= 4
    entered = leader(campaign)
    assert entered.champion == min(complete, key=lambda record: record.total).candidate
    assert campaign.meter.steps == pytest.approx(1 + sum(record.spent for record in campaign.trials))


def test_the_owner_s_learning_rates_are_compared_among_themselves(campaign: Campaign) -> None:
    """A rate that is better after a few steps goes on, whatever other recipes do at the middle one."""
    campaign.meter, campaign.schedule = Meter(budget=Budget(steps=6000)), Schedule.of(6000)
    search(campaign, space_of(campaign.bench.graph, lr_searched=True))
    own = [record for record in campaign.trials if record.candidate.recipe == OWN and record.stage == "search"]
    assert {record.candidate.lr_step for record in own} == set(LR_STEPS)
    complete = [record for record in own if record.state == "complete"]
    assert len(complete) == 2
    left_behind = [record for record in own if record.state == "pruned"]
    assert all("of 5 at step 8" in one.reason or "of 3 at step 16" in one.reason for one in left_behind)
    at_8 = {number: totals[8] for number, totals in enumerate(totals_of(campaign, own))}
    assert max(at_8, key=lambda number: at_8[number]) not in {own.index(record) for record in complete}


def totals_of(campaign: Campaign, records: list[Trial]) -> list[dict[int, float]]:
    """Returns the score after eight steps, from each record's curve."""
    found = []
    for record in records:
        assert record.curve is not None
        early = dataclasses.replace(record.curve, losses=record.curve.losses[:8], held_back=record.curve.held_back[:1])
        found.append({8: campaign.score(early, 8).total})
    return found


def test_an_owner_that_diverges_stops_nobody(campaign: Campaign) -> None:
    with torch.no_grad():
        for parameter in campaign.bench.task.model.parameters():
            if parameter.ndim > 1:
                parameter.fill_(math.nan)
    campaign.bench.snapshot = Snapshot(campaign.bench.task.model)
    rounds = run(campaign)
    assert campaign.trials[0].state == "diverged"
    assert len(campaign.trials) == 11
    assert max(max(totals) for totals in rounds.totals.values()) > 32
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.champion is not None


def test_where_no_other_is_left_the_owner_goes_on_for_what_is_proposed(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform, tried = Bench.perform, itertools.count()

    def failing(self: Bench, job: Any, on_rung: Any) -> Outcome:
        fails = job.candidate.recipe != OWN and job.pauses and next(tried) < 100
        return Outcome(None, 1.0, "it raised") if fails else perform(self, job, on_rung)

    monkeypatch.setattr(Bench, "perform", failing)
    monkeypatch.setattr("autoinit.search.explore.MOST_FAILURES", 100)
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    complete = [record for record in campaign.trials if record.stage == "search" and record.state == "complete"]
    assert complete[0].candidate.recipe == OWN
    assert len(complete) > 1
    assert {steps_of(record) for record in complete} == {128}


def test_a_small_space_is_tried_once_and_not_to_the_end_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long its trainings are is of no matter for that."""
    for longest in ("LONGEST_PROBE", "LONGEST_GATE"):
        monkeypatch.setattr(f"autoinit.judging.budget.{longest}", 32)
    model = nn.Sequential(nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 10), nn.LayerNorm(10))
    selection = autoinit.select(model, DATA, optimizer=sgd, budget=Budget(trials=60), only="0.weight")
    searched = selection.trials[selection.trials.stage == "search"]
    assert 10 < len(searched) < 60
    assert not searched.recipe.duplicated().any()


def test_rounds_and_proposals_are_scored_alike(campaign: Campaign) -> None:
    """One recipe in a round and as a proposal: the same numbers at each rung."""
    rounds = run(campaign)
    best = ranking(campaign.trials)[0]
    seen: dict[int, float] = {}

    def decide(job: Job, curve: Curve) -> str:
        seen[curve.steps] = campaign.score(curve, 256).total
        return ""

    rungs = tuple(rounds.totals[best.number])
    jobs = campaign.jobs("search", [(best.candidate, "search")], 256, rungs=rungs, reference=campaign.reference)
    campaign.run(jobs, decide)
    assert {steps: seen[steps] for steps in rungs} == rounds.totals[best.number]


def known(space: Space) -> set[Candidate]:
    return {Candidate(recipe) for recipe in (OWN, *space.opening)}


@pytest.mark.parametrize(("budget", "fewest"), [(160, 5), (600, 8), (2400, 12)])
def test_a_small_search_looks_at_as_many_as_it_can_pay_for(campaign: Campaign, budget: int, fewest: int) -> None:
    campaign.meter, campaign.schedule = Meter(budget=Budget(steps=budget)), Schedule.of(budget)
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    looked_at = {record.candidate for record in campaign.trials if record.stage == "search"}
    assert len(looked_at) >= fewest
    assert campaign.meter.steps <= 1.1 * budget


def test_a_failing_owner_ends_the_search_at_once(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequential, "run", lambda self, jobs, on_rung: [Outcome(None, 1.0, "it raised") for _ in jobs])
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert len(campaign.trials) == 1
    assert found.nobody is not None
    assert "the run from the model's own weights failed (it raised)" in found.nobody.why


def test_where_nothing_can_be_paused_a_search_judges_one_after_the_other(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sequential, "pauses", False)
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    mine = [record.candidate for record in campaign.trials if record.stage == "search"]
    assert len(mine) == len(set(mine))


@pytest.mark.parametrize("budget", [900, 1000, 1124, 1300])
def test_a_costly_candidate_that_was_tried_keeps_its_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, budget: int
) -> None:
    """Where trainings begin anew, another round of it may cost more than what is left."""
    monkeypatch.setenv("AUTOINIT_DATA", str(tmp_path))
    monkeypatch.setattr(Sequential, "pauses", False)
    costly = Recipe(calibration="gradinit")
    others = [Recipe(base="orthogonal", log2_gain=gain) for gain in (1.5, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7)]
    selection = autoinit.select(
        deep_tanh(), DATA, optimizer=sgd, recipes=[costly, *others], budget=Budget(steps=budget), record=True
    )
    (row,) = selection.trials[
        (selection.trials.recipe == costly.key) & (selection.trials.stage == "search")
    ].itertuples()
    assert row.state in ("complete", "pruned")
    assert row.steps > 0
    assert selection.cost.steps <= 1.1 * budget
