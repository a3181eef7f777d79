from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
import torch
from databases import stored_trials
from sklearn.datasets import load_digits
from torch import nn

from autoinit.errors import ArgumentError
from autoinit.executors.executor import OnRung
from autoinit.executors.processes import WORKER_DIED
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.trials import Candidate, Job, Outcome
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import LR_STEPS, space_of
from autoinit.search import funnel
from autoinit.search.campaign import Campaign, ProgressEvent
from autoinit.search.explore import _affordable
from autoinit.search.finals import Finals, NoChampion
from autoinit.search.funnel import search
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def make_campaign(budget: Budget) -> Iterator[Campaign]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.03))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed=0)
        yield Campaign(bench, Sequential(bench), Meter(budget=budget), Schedule.of(600))


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    yield from make_campaign(Budget(steps=600))


def test_order_of_trials() -> None:
    campaign = next(campaigns := make_campaign(Budget(steps=1200)))
    space = space_of(campaign.bench.graph, lr_searched=False)
    search(campaign, space)
    tried = [record.candidate.recipe for record in campaign.trials if record.stage == "search"]
    assert tried[0] == OWN
    assert tuple(tried[1 : 1 + len(space.opening)]) == space.opening
    assert len(tried) > 1 + len(space.opening)
    states = {record.state for record in campaign.trials if record.stage == "search"}
    assert states == {"complete", "pruned"}
    campaigns.close()


def test_the_owner_is_never_pruned_and_all_meet_the_same_batches(campaign: Campaign) -> None:
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert campaign.trials[0].state == "complete"
    assert len({record.seed for record in campaign.trials if record.stage == "search"}) == 1


def test_the_owner_gets_the_whole_learning_rate_grid(campaign: Campaign) -> None:
    search(campaign, space_of(campaign.bench.graph, lr_searched=True))
    own = [record.candidate for record in campaign.trials[: len(LR_STEPS)]]
    assert set(own) == {Candidate(OWN, lr_step) for lr_step in LR_STEPS}


def test_steps_are_kept_within_the_budget(campaign: Campaign) -> None:
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert 300 < campaign.meter.steps <= 1.1 * 600


@pytest.mark.parametrize(("spent", "rivals", "count"), [(1_440, False, 3), (1_440, True, 0), (400, True, 8)])
def test_the_search_uses_the_finals_share_while_nothing_beats_the_owner(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, spent: int, rivals: bool, count: int
) -> None:
    campaign.run(campaign.jobs("search", [(Candidate(OWN), "search")], 10))
    campaign.schedule = Schedule.of(2_400)
    campaign.meter = Meter(budget=Budget(steps=2_400), steps=spent)
    monkeypatch.setattr("autoinit.search.explore.finalists", lambda records: (Candidate(OWN), ["he_normal"] * rivals))
    assert _affordable(campaign, campaign.schedule.rungs[-1]) == count


def test_a_batch_is_as_large_as_all_workers_where_the_clock_decides(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.run(campaign.jobs("search", [(Candidate(OWN), "search")], 10))
    monkeypatch.setattr(Sequential, "concurrency", 20)
    for budget, count in ((Budget(steps=100_000), 8), (Budget(seconds=1e6), 20)):
        campaign.meter = Meter(budget=budget, step_seconds=1.0)
        assert _affordable(campaign, campaign.schedule.rungs[-1]) == count


def test_no_trial_starts_that_could_not_reach_the_last_rung(campaign: Campaign) -> None:
    (own,) = campaign.run(campaign.jobs("search", [(Candidate(OWN), "search")], campaign.schedule.rungs[-1]))
    end = campaign.schedule.finals_until * 600
    campaign.meter.steps = end - own.spent
    assert _affordable(campaign, campaign.schedule.rungs[-1]) == 1
    campaign.meter.steps = end - own.spent + 1
    assert _affordable(campaign, campaign.schedule.rungs[-1]) == 0


def test_same_seed_same_trials() -> None:
    def keys() -> list[tuple[str, float]]:
        campaign = next(iter(make_campaign(Budget(steps=600))))
        search(campaign, space_of(campaign.bench.graph, lr_searched=False))
        return [(record.candidate.recipe.key, record.total) for record in campaign.trials]

    assert keys() == keys()


def test_a_list_of_recipes_is_tried_and_nothing_else(campaign: Campaign) -> None:
    search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal", "lsuv"]))
    tried = [record.candidate.recipe.key for record in campaign.trials if record.stage == "search"]
    assert tried == ["as_is", "he_normal", "orthogonal calibration=lsuv"]


def test_trials_are_limited() -> None:
    campaign = next(iter(make_campaign(Budget(trials=4, steps=100_000))))
    search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert sum(record.stage == "search" for record in campaign.trials) == 4


def test_storage_keeps_the_trials_with_their_reasons(campaign: Campaign, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    space = space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal"])
    search(campaign, space, storage=storage, study_name="one")
    trials = stored_trials(storage, "one")
    assert [trial.user_attrs["recipe"] for trial in trials] == ["as_is", "he_normal"]
    assert all(set(trial.intermediate_values) <= set(campaign.schedule.rungs) for trial in trials)
    assert trials[0].state.name == "COMPLETE"
    with pytest.raises(ArgumentError, match="holds a study 'one' already"):
        search(campaign, space, storage=storage, study_name="one")


def test_ctrl_c_goes_to_the_gate_with_the_best_so_far(campaign: Campaign) -> None:
    def interrupt(event: object) -> None:
        if len(campaign.trials) == 4:
            campaign.progress = lambda event: None
            raise KeyboardInterrupt

    campaign.progress = interrupt
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.interrupted
    assert sum(record.stage != "gate" for record in campaign.trials) == 4
    assert (found.champion is None) == (found.verdict is None)


def test_a_second_ctrl_c_is_raised(campaign: Campaign) -> None:
    def interrupt(event: object) -> None:
        if len(campaign.trials) >= 4:
            raise KeyboardInterrupt

    campaign.progress = interrupt
    with pytest.raises(KeyboardInterrupt, match=r"stopped after \d+ runs: .* The model's own weights are put back"):
        search(campaign, space_of(campaign.bench.graph, lr_searched=False))


def test_ctrl_c_says_at_once_how_long_the_rest_takes(campaign: Campaign) -> None:
    said: list[ProgressEvent] = []

    def interrupt(event: ProgressEvent) -> None:
        said.append(event)
        if len(campaign.trials) == 8 and event.stage == "search":
            raise KeyboardInterrupt

    campaign.progress = interrupt
    space = space_of(campaign.bench.graph, lr_searched=False)
    found = search(campaign, space)
    place = next(place for place, event in enumerate(said) if event.stage == "finishing")
    assert found.interrupted
    assert "5.0 s at most; Ctrl-C again stops" in said[place].message
    assert said[place - 1].stage == "search"
    assert all(event.stage in ("finishing", "gate") for event in said[place:])


def test_ctrl_c_before_anything_led_is_answered_too(campaign: Campaign) -> None:
    said: list[ProgressEvent] = []

    def interrupt(event: ProgressEvent) -> None:
        said.append(event)
        if len(campaign.trials) == 1 and event.stage == "search":
            raise KeyboardInterrupt

    campaign.progress = interrupt
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.interrupted
    assert (said[-1].stage, said[-1].message) == ("finishing", "nothing led yet")


def test_ctrl_c_in_the_gate_begins_a_short_one(campaign: Campaign) -> None:
    pressed: list[int] = []

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == "gate" and not pressed:
            pressed.append(len(campaign.trials))
            # From here on a second is a step, so that the few seconds that are left pay for very short runs.
            campaign.meter.pace(0.05)
            raise KeyboardInterrupt

    campaign.progress = interrupt
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal", "orthogonal"]))
    assert pressed
    assert found.interrupted
    gate = [trial for trial in campaign.trials if trial.stage == "gate"]
    first, later = gate[0], gate[-1]
    assert first.curve is not None
    if found.verdict is not None:
        assert later.curve is not None
        assert later.curve.steps <= first.curve.steps


def test_a_gate_after_ctrl_c_ends_when_its_time_is_over(campaign: Campaign) -> None:
    """However slow the machine has become: the seconds were promised."""

    def interrupt(event: ProgressEvent) -> None:
        if event.stage == "search" and len(campaign.trials) == 4:
            raise KeyboardInterrupt
        if event.stage == "gate":
            campaign.meter.deadline = campaign.meter.seconds

    campaign.progress = interrupt
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.interrupted
    assert found.champion is not None
    assert found.verdict is None
    assert sum(trial.stage == "gate" for trial in campaign.trials) == 1  # the second run was ended at its first rung


def test_optuna_s_own_messages_are_silent_and_its_level_is_put_back(
    campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    before = optuna.logging.get_verbosity()
    with caplog.at_level(logging.INFO, logger="optuna"):
        search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal"]))
    assert optuna.logging.get_verbosity() == before


def test_ctrl_c_leaves_no_trial_running_in_the_storage(campaign: Campaign, tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        if len(campaign.trials) == 3:
            campaign.progress = lambda event: None
            raise KeyboardInterrupt

    campaign.progress = interrupt
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    search(campaign, space_of(campaign.bench.graph, lr_searched=False), storage=storage, study_name="one")
    states = [trial.state.name for trial in stored_trials(storage, "one")]
    assert states[0] == "COMPLETE"
    assert "RUNNING" not in states


def test_ctrl_c_between_proposals_leaves_no_trial_running(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, calls = optuna.Study.ask, []

    def interrupted(self: optuna.Study, *arguments: object) -> optuna.Trial:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ask(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna.Study, "ask", interrupted)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False), storage=storage, study_name="one")
    assert found.nobody == NoChampion("no other candidate had been tried yet", open=True, longer=2.0)
    states = [trial.state.name for trial in stored_trials(storage, "one")[:3]]
    assert states == ["FAIL", "FAIL", "FAIL"]


def test_the_champion_s_own_draw_is_counted(campaign: Campaign) -> None:
    campaign.meter.budget = Budget(steps=3_000)
    calibrated = Recipe(base="orthogonal", calibration="lsuv")
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=[calibrated]))
    assert found.champion is not None
    assert found.champion.recipe == calibrated
    assert campaign.meter.steps > sum(record.spent for record in campaign.trials)


def test_every_trial_that_goes_no_further_says_why() -> None:
    campaign = next(campaigns := make_campaign(Budget(steps=6_000)))
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.champion is not None
    for record in campaign.trials:
        last = not any(later.candidate == record.candidate for later in campaign.trials[record.number + 1 :])
        if last and record.candidate not in (found.own, found.champion):
            assert record.reason, record
    assert campaign.trials[-1].reason.startswith("the gate's verdict: ")
    campaigns.close()


def test_hopeless_weights_cost_one_step(campaign: Campaign) -> None:
    search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=[Recipe(log2_gain=30.0)]))
    vetoed = campaign.trials[1]
    assert (vetoed.state, vetoed.spent, vetoed.score) == ("vetoed", 1, None)
    assert "times that of a constant guess" in vetoed.reason


def test_the_owner_s_trial_is_run_again_where_its_worker_died(campaign: Campaign) -> None:
    class Mortal(Sequential):
        deaths = 1

        def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
            if self.deaths:
                self.deaths -= 1
                yield from (Outcome(None, 1, f"{WORKER_DIED} (signal 9)") for _ in jobs)
            else:
                yield from super().run(jobs, on_rung)

    campaign.executor = Mortal(campaign.bench)
    search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal"]))
    assert [record.state for record in campaign.trials[:2]] == ["complete", "complete"]
    campaign.trials.clear()
    campaign.executor.deaths = 2
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False, recipes=["he_normal"]))
    assert found.nobody is not None
    assert "the run from the model's own weights failed" in found.nobody.why


def test_a_calibration_that_costs_more_than_is_left_is_not_begun(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after Ctrl-C, when a few seconds are left and the leader's weights take two hundred steps to set."""
    champion = Candidate(Recipe(base="he_normal", calibration="gradinit"))
    monkeypatch.setattr(funnel, "explore", lambda *anything: None)
    monkeypatch.setattr(funnel, "finals", lambda *anything, **more: Finals(Candidate(OWN), champion))
    campaign.meter.budget = Budget(steps=int(campaign.meter.steps) + 150)
    found = search(campaign, space_of(campaign.bench.graph, lr_searched=False))
    assert found.verdict is None
    assert found.nobody is not None
    assert "its calibration takes about 210 training steps, which are not left" in found.nobody.why
    assert campaign.trials == []
