"""Jobs in a stack give what the same jobs give one after the other, and every way of failing ends in outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from stacking import (
    CASES,
    IMAGES,
    OPTIMIZERS,
    RECIPES,
    ROWS,
    LanguageModel,
    Mixed,
    Reader,
    assert_alike,
    benched,
    biases_alone,
    cnn,
    fail_to_draw,
    going_on,
    jobs_of,
    language_batches,
    mlp,
    momentum,
    stopping,
)
from torch import nn

from autoinit.executors.sequential import Sequential
from autoinit.executors.stacked import Stacked, why_not
from autoinit.judging.budget import Budget, Meter, Schedule
from autoinit.judging.score import Curve, Reference
from autoinit.judging.trials import Candidate, Job
from autoinit.probing.bench import Bench
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import space_of
from autoinit.search.campaign import Campaign
from autoinit.search.funnel import search
from autoinit.stacks import lockstep as lockstepping
from autoinit.stacks.elementwise import ELEMENTWISE
from autoinit.stacks.stack import Stack, moving_buffers
from autoinit.task.task import make_task
from autoinit.tracing.tracing import trace_task


@pytest.mark.parametrize("case", CASES)
def test_a_stack_gives_what_one_after_the_other_gives(case: str) -> None:
    make, data, optimizer, rest = CASES[case]
    with benched(make, data, optimizer, **rest) as bench:
        assert why_not(bench) == ""
        jobs = jobs_of()
        asked, on_rung = stopping((1, 3), (3, 6))
        stacked = Stacked(bench, 5)
        found = list(stacked.run(jobs, on_rung))
        assert stacked.notes == []
        assert asked == [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3), (0, 6), (2, 6), (3, 6), (4, 6), (0, 8), (2, 8), (4, 8)]
        alone = list(Sequential(bench).run(jobs, stopping((1, 3), (3, 6))[1]))
        assert [outcome.curve.steps for outcome in alone if outcome.curve] == [8, 3, 8, 6, 8]
        assert len({outcome.curve.losses[0] for outcome in alone if outcome.curve}) == 5
        assert_alike(found, alone, rel=0.03 if "bfloat16" in case else 1e-6)


def test_what_trains_without_a_matrix_is_looked_at_as_one_after_the_other() -> None:
    with benched(biases_alone, ROWS, momentum) as bench:
        found, alone = (
            list(executor.run(jobs_of(), stopping((1, 3), (3, 6))[1]))
            for executor in (Stacked(bench, 5), Sequential(bench))
        )
        assert all(one.curve and one.curve.glance and one.curve.glance.gradient_norm > 0 for one in found)
        assert_alike(found, alone, rel=1e-6)


def test_float32_agrees_within_its_rounding() -> None:
    torch.manual_seed(0)
    task = make_task(Reader(), ROWS, optimizer=momentum)
    with task.preserved() as snapshot:
        bench = Bench(task, trace_task(task), snapshot, seed=0)
        jobs = jobs_of()
        found = list(Stacked(bench, 5).run(jobs, going_on))
        assert_alike(found, list(Sequential(bench).run(jobs, going_on)), rel=1e-4)


@pytest.mark.parametrize("name", [kind.__name__ for kind in ELEMENTWISE])
def test_every_optimizer_of_the_table_at_several_learning_rates(name: str) -> None:
    """Ten steps, so that RAdam's later form and ASGD's average are reached; candidates leave the stack on the way."""
    with benched(mlp, ROWS, OPTIMIZERS[name]) as bench:
        assert why_not(bench) == ""
        jobs = jobs_of(lr_steps=(0, 1, -1, 1, 0), steps=12)
        stacked = Stacked(bench, 5)
        found = list(stacked.run(jobs, stopping((0, 3), (3, 6))[1]))
        assert stacked.notes == []
        assert_alike(found, list(Sequential(bench).run(jobs, stopping((0, 3), (3, 6))[1])))


def test_learning_rates_are_mixed_also_under_a_scheduler_with_a_floor() -> None:
    def optimizer(parameters: Any) -> tuple[torch.optim.Optimizer, Any]:
        sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=8, eta_min=0.05)

    with benched(mlp, ROWS, optimizer) as bench:
        jobs = jobs_of(lr_steps=(0, 1, -1, 1, 0))
        assert_alike(list(Stacked(bench, 5).run(jobs, going_on)), list(Sequential(bench).run(jobs, going_on)))


def test_jobs_of_several_orders_and_lengths_are_asked_about_in_number_order() -> None:
    """Pairs of a gate share an order each; a longer job waits until those before it have ended."""
    with benched(mlp, ROWS) as bench:
        jobs = [
            Job(number, stage, Candidate(RECIPES[number % 2]), seed, steps, rungs)
            for number, (stage, seed, steps, rungs) in enumerate(
                [("gate", 1, 6, (3,))] * 2
                + [("gate", 2, 6, (3,))] * 2
                + [("search", 1, 6, (3,)), ("final", 1, 9, (4,))]
            )
        ]
        asked, on_rung = stopping((1, 3))
        found = list(Stacked(bench, 8).run(jobs, on_rung))
        by_three = [(number, 3) for number in range(5)]
        assert asked == [*by_three, *((number, 6) for number in (0, 2, 3, 4)), (5, 4), (5, 9)]
        assert_alike(found, list(Sequential(bench).run(jobs, stopping((1, 3))[1])))


def test_exact_weights_of_a_plan_are_trained() -> None:
    with benched(mlp, ROWS) as bench:
        plan = bench.draw(RECIPES[1])
        jobs = [Job(0, "gate", Candidate(OWN), 5, 4), Job(1, "gate", Candidate(RECIPES[1]), 5, 4, plan=plan)]
        assert_alike(list(Stacked(bench, 2).run(jobs, going_on)), list(Sequential(bench).run(jobs, going_on)))


def test_a_veto_ends_a_candidate_before_its_first_step() -> None:
    reference = Reference(2.3)
    recipes = (RECIPES[1], Recipe(base="zeros"), Recipe(log2_gain=12.0), RECIPES[3])
    with benched(mlp, ROWS) as bench:
        jobs = jobs_of(recipes, reference=reference)
        found = list(Stacked(bench, 4).run(jobs, going_on))
        assert [outcome.curve.steps for outcome in found if outcome.curve] == [8, 1, 1, 8]
        assert [bool(outcome.reason) for outcome in found] == [False, True, True, False]
        assert_alike(found, list(Sequential(bench).run(jobs, going_on)))


def test_a_divergence_leaves_the_others_as_they_are() -> None:
    """Candidate 1's weights overflow within some steps; 0 and 2 give the very numbers that they give without it."""
    quadratic = {"loss": lambda output, target: output.square().mean()}
    with benched(mlp, ROWS, lambda p: torch.optim.SGD(p, lr=0.1), **quadratic) as bench:
        jobs = jobs_of(RECIPES[:3], lr_steps=(0, 0, 0), steps=12)
        wild = Candidate(Recipe(log2_gain=5.0), 500)
        mixed = [jobs[0], Job(1, "search", wild, 3, 12, (3, 6)), jobs[2]]
        found = list(Stacked(bench, 3).run(mixed, going_on))
        without = list(Stacked(bench, 3).run([jobs[0], jobs[2]], going_on))
        assert found[1].curve is not None
        assert found[1].curve.diverged_at is not None
        assert found[1].curve.diverged_at < 12
        assert_alike(found, list(Sequential(bench).run(mixed, going_on)))
        assert_alike([found[0], found[2]], without, rel=1e-12)


def test_losses_that_are_read_at_rungs_give_the_same_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes while the program goes on, where a divergence is noticed at the next rung."""
    quadratic = {"loss": lambda output, target: output.square().mean()}
    with benched(mlp, ROWS, lambda p: torch.optim.SGD(p, lr=0.1), **quadratic) as bench:
        jobs = jobs_of(RECIPES[:3], lr_steps=(0, 0, 0), steps=12)
        jobs[1] = Job(1, "search", Candidate(Recipe(log2_gain=5.0), 500), 3, 12, (3, 6))
        at_once = list(Stacked(bench, 3).run(jobs, going_on))
        monkeypatch.setattr(lockstepping, "runs_ahead", lambda device: True)
        late = list(Stacked(bench, 3).run(jobs, going_on))
    assert at_once[1].curve is not None
    assert at_once[1].curve.diverged_at not in (None, 3, 6, 12)
    assert_alike(late, at_once, rel=1e-12)


def test_a_draw_that_fails_ends_its_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_to_draw(monkeypatch, 1)
    with benched(mlp, ROWS) as bench:
        found = list(Stacked(bench, 4).run(jobs_of(), going_on))
        assert found[1].curve is None
        assert "no such draw" in found[1].reason
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)))


def test_a_question_that_fails_ends_its_job_only() -> None:
    def on_rung(job: Job, curve: Curve) -> bool:
        if (job.number, curve.steps) == (1, 3):
            raise ValueError("cannot be judged")
        return True

    with benched(mlp, ROWS) as bench:
        found = list(Stacked(bench, 5).run(jobs_of(), on_rung))
        assert found[1].curve is None
        assert "cannot be judged" in found[1].reason
        assert [outcome.curve is not None for outcome in found] == [True, False, True, True, True]


def starved(monkeypatch: pytest.MonkeyPatch, fits: int, at: int = 5) -> None:
    """Lets a stack of more than some candidates run out of memory at one of its steps."""
    backward = Stack.backward

    def checked(stack: Stack, batch: Any) -> list[float]:
        stack.taken = vars(stack).get("taken", 0) + 1  # type: ignore[attr-defined]
        if stack.size > fits and stack.taken == at:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return backward(stack, batch)

    monkeypatch.setattr(Stack, "backward", checked)


def test_out_of_memory_halves_the_concurrency_and_no_outcome_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=2)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        asked, on_rung = stopping((1, 3))
        found = list(stacked.run(jobs_of(), on_rung))
        assert stacked.concurrency == 2
        assert "4 candidates at a time failed (OutOfMemoryError: CUDA out of memory" in stacked.notes[0]
        assert len(stacked.notes) == 1
        assert len(asked) == len(set(asked)) == 13  # nobody is asked twice, which a halving would count twice
        assert_alike(found, list(Sequential(bench).run(jobs_of(), stopping((1, 3))[1])))
        assert_alike(list(stacked.run(jobs_of(), going_on)), list(Sequential(bench).run(jobs_of(), going_on)))


def test_out_of_memory_ends_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=1)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert (stacked.concurrency, len(stacked.notes)) == (1, 2)
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)), rel=0.0)


def test_memory_that_a_draw_lacks_halves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    place, calls = Bench.place, list[int]()

    def failing(bench: Bench, job: Job, tally: Any) -> None:
        calls.append(job.number)
        if len(calls) == 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        place(bench, job, tally)

    monkeypatch.setattr(Bench, "place", failing)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert (stacked.concurrency, len(found)) == (2, 5)
        assert all(outcome.curve is not None for outcome in found)


def test_a_stack_that_fails_otherwise_goes_on_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stack: Stack, batches: Any) -> list[list[float]]:
        raise RuntimeError("no rule for this operation")

    monkeypatch.setattr(Stack, "evaluate", broken)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 4)
        found = list(stacked.run(jobs_of(), going_on))
        assert stacked.notes == [
            "4 candidates at a time failed (RuntimeError: no rule for this operation): 1 from there"
        ]
        assert_alike(found, list(Sequential(bench).run(jobs_of(), going_on)), rel=0.0)


@pytest.mark.parametrize("make", [cnn, Reader])
def test_model_and_random_states_are_left_alone(make: Callable[[], nn.Module]) -> None:
    data = IMAGES if make is cnn else ROWS
    with benched(make, data) as bench, unchanged(bench.task.model):
        assert why_not(bench) == ""
        stacked = Stacked(bench, 4)
        assert len(list(stacked.run(jobs_of()[:4], stopping((1, 3))[1]))) == 4
        assert stacked.pace(2) > 0
        stacked.close()


def test_an_interruption_comes_through_and_the_model_is_put_back() -> None:
    def press(job: Job, curve: Curve) -> bool:
        raise KeyboardInterrupt

    with benched(mlp, ROWS) as bench, unchanged(bench.task.model), pytest.raises(KeyboardInterrupt):
        list(Stacked(bench, 4).run(jobs_of(), press))


def test_pace_is_of_all_candidates_and_lowers_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    starved(monkeypatch, fits=2, at=1)
    with benched(mlp, ROWS) as bench:
        stacked = Stacked(bench, 8)
        assert stacked.pace(3) > 0
        assert stacked.concurrency == 2
        starved(monkeypatch, fits=1, at=1)
        assert stacked.pace(3) == 0.0
        assert stacked.concurrency == 1


def test_only_buffers_that_training_changes_are_copied() -> None:
    with benched(cnn, IMAGES) as bench:
        moving = moving_buffers(bench.task)
        assert {name.rpartition(".")[2] for name in moving} == {"running_mean", "running_var", "num_batches_tracked"}
        assert len(moving) == 6
    with benched(Mixed, ROWS) as bench:
        assert "model.average" in moving_buffers(bench.task)
    with benched(LanguageModel, language_batches(labels=False)) as bench:
        assert moving_buffers(bench.task) == set()


def test_a_whole_search_decides_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halving, finals and gate, in float64, where rounding decides nothing: the same records with the same reasons."""
    monkeypatch.setattr(Sequential, "pauses", False)  # as on an accelerator: what went on would have steps to spare

    def records(executor: Callable[[Bench], Any]) -> list[tuple[Any, ...]]:
        with benched(mlp, ROWS, None) as bench:
            meter, schedule = Meter(budget=Budget(steps=1500)), Schedule.of(1500)
            campaign = Campaign(bench, executor(bench), meter, schedule)
            search(campaign, space_of(bench.graph, lr_searched=True))
            return [
                (record.stage, record.candidate, record.state, record.reason, record.spent)
                for record in campaign.trials
            ]

    stacked, alone = records(lambda bench: Stacked(bench, 8)), records(Sequential)
    assert {record[2] for record in alone} >= {"complete", "pruned"}
    assert stacked == alone
