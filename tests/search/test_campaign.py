from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.executors.executor import OnRung
from autoinit.executors.sequential import Sequential
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve, Reference
from autoinit.judging.trials import Candidate, Job, Outcome, Trial
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.campaign import Campaign, ProgressEvent
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
HE = Candidate(Recipe(base="he_normal"))


class Scripted:
    """An executor whose outcomes are given beforehand."""

    name = "scripted"
    concurrency = 1

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.notes: list[str] = []

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        for job in jobs:
            outcome = self.outcomes.pop(0)
            if outcome.curve is not None and outcome.curve.steps < job.steps and not outcome.reason:
                on_rung(job, outcome.curve)
            yield outcome

    def close(self) -> None:
        pass


@pytest.fixture
def campaign() -> Iterator[Campaign]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    task = make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    graph = trace_task(task)
    with task.preserved() as snapshot:
        bench = Bench(task, graph, snapshot, seed=0)
        yield Campaign(bench, Sequential(bench), Meter(budget=Budget(steps=10_000)), Schedule.of(10_000))


def run(campaign: Campaign, *candidates: Candidate, steps: int = 5, stage: str = "search") -> list[Trial]:
    entries = [(candidate, "search") for candidate in candidates]
    return campaign.run(campaign.jobs(stage, entries, steps))  # type: ignore[arg-type]


def test_jobs_are_numbered_after_the_records(campaign: Campaign) -> None:
    run(campaign, Candidate(OWN), HE)
    jobs = campaign.jobs("final", [(HE, "final 0"), (HE, "final 1")], 7, rungs=(3,))
    assert [(job.number, job.steps, job.rungs) for job in jobs] == [(2, 7, (3,)), (3, 7, (3,))]
    assert jobs[0].seed != jobs[1].seed


def test_the_first_job_sets_the_reference(campaign: Campaign) -> None:
    run(campaign, Candidate(OWN))
    assert campaign.reference is not None
    assert campaign.reference.loss == pytest.approx(math.log(10), rel=0.01)  # entropy of ten balanced classes


def test_what_is_spent_is_counted_down(campaign: Campaign) -> None:
    records = run(campaign, Candidate(OWN), HE)
    assert campaign.meter.steps > 10
    assert campaign.meter.steps == pytest.approx(sum(record.spent for record in records))


def test_how_a_run_can_end(campaign: Campaign) -> None:
    full = Curve((1.0,) * 5)
    campaign.executor = Scripted(
        Outcome(full, 5.0),
        Outcome(Curve((1.0,)), 1.0, "hopeless"),
        Outcome(Curve((1.0, math.nan), diverged_at=2), 2.0),
        Outcome(None, 1.0, "OutOfMemoryError: 80 GiB"),
        Outcome(Curve((1.0, 1.0)), 2.0),
    )
    jobs = campaign.jobs("search", [(HE, "search")] * 5, 5)
    records = campaign.run(jobs, lambda job, curve: "too slow")
    assert [(record.state, record.reason) for record in records] == [
        ("complete", ""),
        ("vetoed", "hopeless"),
        ("diverged", "the loss was not finite at step 2"),
        ("failed", "OutOfMemoryError: 80 GiB"),
        ("pruned", "too slow"),
    ]
    assert [record.score is None for record in records] == [False, True, False, True, False]


def test_a_candidate_can_be_dropped_later(campaign: Campaign) -> None:
    record, _ = run(campaign, Candidate(OWN), HE)
    campaign.drop(record, "not needed")
    assert [record.reason for record in campaign.trials] == ["not needed", ""]


def test_progress_is_told_after_each_run(campaign: Campaign) -> None:
    events: list[ProgressEvent] = []
    campaign.progress = events.append
    run(campaign, Candidate(OWN), HE)
    assert [event.stage for event in events] == ["search", "search"]
    assert events[0].message == "1 run, leading: own weights"
    assert 0 < events[0].done < events[1].done < 1


def test_a_failing_decision_is_no_candidate_s_fault(campaign: Campaign) -> None:
    def decide(job: Job, curve: Curve) -> str:
        raise OSError("the storage is gone")

    jobs = campaign.jobs("search", [(Candidate(OWN), "search"), (HE, "search")], 20, rungs=(5,))
    with pytest.raises(OSError, match="the storage is gone"):
        campaign.run(jobs, decide)
    assert [record.state for record in campaign.trials] == ["complete", "pruned"]


def test_by_the_clock_fewer_jobs_at_a_time_get_fewer_steps_done(campaign: Campaign) -> None:
    campaign.executor = Scripted()
    campaign.executor.concurrency = 8
    assert campaign.left(1.0, 2) == campaign.meter.left()
    campaign.meter = Meter(budget=Budget(seconds=1e9), step_seconds=1.0)
    assert campaign.left(1.0, 2) == pytest.approx(campaign.meter.left() / 4, rel=1e-6)
    assert campaign.left(1.0, 16) == pytest.approx(campaign.meter.left(), rel=1e-6)


def test_a_stack_holds_one_pair_of_a_gate_at_a_time_and_no_run_is_slower_than_one_by_itself(campaign: Campaign) -> None:
    campaign.executor = Scripted()
    campaign.executor.concurrency = 32
    campaign.meter = Meter(budget=Budget(seconds=1e9), step_seconds=1.0)
    whole = campaign.meter.left()
    for name, alone, share in (("scripted", 0.0, 6 / 32), ("stacked", 0.0, 2 / 32), ("stacked", 0.4, 0.4)):
        campaign.executor.name, campaign.alone = name, alone
        assert campaign.left_for_pairs(3) == pytest.approx(whole * share, rel=1e-6)
        after = campaign.left_for_pairs(3, after=whole / 2)  # of steps at the pace of all jobs together
        assert after == pytest.approx(whole * share / 2, rel=1e-6)


def test_what_ran_before_an_interruption_is_kept(campaign: Campaign) -> None:
    def interrupt(event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    campaign.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(campaign, Candidate(OWN), HE)
    assert len(campaign.trials) == 1


@pytest.mark.parametrize(("budget", "begun"), [(150, set()), (600, {"gradinit"}), (1500, {"gradinit", "nio"})])
def test_a_calibration_that_costs_more_than_the_search_has_is_not_begun(budget: int, begun: set[str]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    costly = [Recipe(base="he_normal", calibration=name) for name in ("gradinit", "nio", "metainit")]
    selection = autoinit.select(
        model,
        DATA,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        recipes=[*costly, "orthogonal", "xavier_normal"],
        budget=Budget(steps=budget),
    )
    rows = selection.trials[selection.trials.stage == "search"].set_index("recipe")
    assert len(rows) == 6
    for recipe in costly:
        row = rows.loc[recipe.key]
        assert (row.spent > 0) == (recipe.calibration in begun), row.reason
        if row.spent == 0:
            assert row.state == "failed"
            assert "its calibration takes about" in row.reason
            assert "leave it out, or give" in row.reason
    assert selection.cost.steps <= 1.1 * budget


def scripted(campaign: Campaign, *losses: tuple[float, ...]) -> Campaign:
    """The campaign of a task of which no constant guess is known, whose next runs have these losses."""
    campaign.bench.task.reference = None
    return dataclasses.replace(campaign, executor=Scripted(*(Outcome(Curve(one), 1.0) for one in losses)))


def test_where_values_become_negative_all_are_scored_anew_by_differences(campaign: Campaign) -> None:
    met = scripted(campaign, (2.0, 1.5), (2.0, -1.0), (2.0, -0.5))
    (own,) = run(met, Candidate(OWN), steps=2)
    assert met.reference == Reference(2.0, guess=False)
    found = run(met, HE, Candidate(Recipe(base="orthogonal")), steps=2)
    assert met.reference == Reference(2.0, scale=2.0, guess=False)
    assert met.settled == 1
    assert [trial.score.training for trial in met.trials if trial.score] == pytest.approx([-0.25, -1.5, -1.25])
    assert found == met.trials[1:], "what is returned is scored so, too"
    assert own != met.trials[0]


def test_what_a_proxy_has_shown_sets_no_unit_on_the_model(campaign: Campaign) -> None:
    met = scripted(campaign, (2.0, 1.5), (2.0, -300.0))
    run(met, Candidate(OWN), HE, steps=2)
    before = list(met.trials)
    judged = dataclasses.replace(
        scripted(met, (4.0, 3.0), (4.0, -6.0)), reference=None, since=2, extent=(math.inf, -math.inf)
    )
    run(judged, Candidate(OWN), HE, steps=2, stage="gate")
    assert judged.reference == Reference(4.0, scale=4.0, guess=False)
    assert judged.trials[:2] == before


def test_a_unit_that_has_become_too_small_is_set_anew(campaign: Campaign) -> None:
    met = scripted(campaign, (-0.001, -0.001), (-0.001, -500.0))
    run(met, Candidate(OWN), HE, steps=2)
    assert met.reference is not None
    assert met.reference.scale == pytest.approx(0.1 * (500.0 - 0.001))
