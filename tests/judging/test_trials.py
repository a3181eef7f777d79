from __future__ import annotations

import math

from autoinit.judging.score import Curve, Score
from autoinit.judging.trials import Candidate, Job, Trial, ranking
from autoinit.recipes.recipe import OWN, Recipe


def record(number: int, candidate: Candidate, total: float | None, **rest: object) -> Trial:
    scored = None if total is None else Score(total, total, total, 0.0, 10)
    fields = {"stage": "search", "state": "complete", **rest}
    return Trial(number, candidate=candidate, seed=0, curve=Curve((1.0,)), score=scored, **fields)  # type: ignore[arg-type]


def test_ranking_takes_each_recipe_at_its_best_learning_rate() -> None:
    he = Candidate(Recipe(base="he_normal"))
    records = [
        record(0, Candidate(OWN, -2), 0.5),
        record(1, Candidate(OWN, 0), -0.5),
        record(2, he, -0.2),
        record(3, he, -9.0, stage="final"),
        record(4, Candidate(Recipe(base="orthogonal")), -9.0, state="pruned"),
    ]
    assert [found.number for found in ranking(records)] == [1, 2]


def test_of_equal_trials_of_a_recipe_the_first_stays() -> None:
    first, second = record(3, Candidate(OWN, 0), 0.5), record(4, Candidate(OWN, 1), 0.5)
    assert ranking([first, second]) == [first]


def test_a_job_draws_and_trains_and_no_more_unless_it_is_told() -> None:
    job = Job(0, "search", Candidate(OWN), seed=0, steps=10)
    assert job.candidate.lr_step == 0
    assert (job.rungs, job.plan, job.reference, job.pauses, job.goes_on) == ((), None, None, False, False)


def test_a_failed_run_sorts_last() -> None:
    failed = record(0, Candidate(OWN), None, state="failed")
    assert (failed.total, failed.reason, failed.spent) == (math.inf, "", 0.0)
