"""The trials of a task as data: which there are, in what order, and under which numbers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from graphs import mlp
from study_plans import plan

from autoinit.errors import ArgumentError, RecipeError
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import space_of
from autoinit.study.jobs import Described, StudyJob, dense_jobs, long_jobs

HE, LSUV = Recipe(base="he_normal"), Recipe(base="orthogonal", log2_gain=-0.25, calibration="lsuv")
DESCRIBED = Described(
    "75739c3fe13f5b67",
    {"parameters": 3466, "sequence_length": None, "loss": "cross_entropy", "depth": 2.5},
    (OWN, HE, LSUV),
    space_of(mlp(), lr_searched=True),
    {"as_is recurrent=chrono": "needs gates"},
    0.05,
)
JOB = StudyJob("mlp", 3, "probe", LSUV, 7, -1, 40, (10, 20))


def dense(**changes: Any) -> list[StudyJob]:
    return dense_jobs(plan(**changes), "mlp", DESCRIBED)


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        StudyJob("a", 0, "long", OWN, 0, 0, 1),
        StudyJob("a", 0, "probe", Recipe(rules=(("output", "zeros"),)), 0, 0, 1),
    ],
)
def test_job_comes_back_from_json(job: StudyJob) -> None:
    assert StudyJob.from_data(json.loads(json.dumps(job.to_data()))) == job


def test_job_keeps_only_what_a_recipe_changes() -> None:
    assert JOB.to_data()["recipe"] == {"base": "orthogonal", "log2_gain": -0.25, "calibration": "lsuv"}
    assert StudyJob("a", 0, "probe", OWN, 0, 0, 1).to_data()["recipe"] == {}


@pytest.mark.parametrize("lr", [0.05, None])
def test_description_comes_back_from_json(lr: float | None) -> None:
    described = Described(
        DESCRIBED.fingerprint, DESCRIBED.features, DESCRIBED.candidates, DESCRIBED.space, DESCRIBED.left_out, lr
    )
    assert Described.from_data(json.loads(json.dumps(described.to_data()))) == described


def test_damaged_data_are_refused_and_named() -> None:
    data = DESCRIBED.to_data()
    with pytest.raises(ArgumentError, match=r"description in the storage is not a valid Described: .*candidates"):
        Described.from_data({**data, "candidates": "all"})
    with pytest.raises(ArgumentError, match="fingerprint"):
        Described.from_data({name: value for name, value in data.items() if name != "fingerprint"})
    with pytest.raises(RecipeError, match="no field 'bass'"):
        StudyJob.from_data({**JOB.to_data(), "recipe": {"bass": "he_normal"}})
    with pytest.raises(TypeError, match="color"):
        StudyJob.from_data({**JOB.to_data(), "color": "red"})


def test_each_candidate_is_tried_with_each_seed() -> None:
    found = dense(seeds=[4, 0, 9])
    assert [(job.seed, job.recipe) for job in found] == list(itertools.product((4, 0, 9), (OWN, HE, LSUV)))
    assert [job.number for job in found] == list(range(9))
    assert {(job.task, job.stage, job.lr_step, job.steps) for job in found} == {("mlp", "probe", 0, 4)}


def test_learning_rates_are_tried_on_the_first_seed_only() -> None:
    found = dense(seeds=[4, 0], lr_steps=[1, -2])
    assert len(found) == 3 * (3 + 1)
    assert [(job.seed, job.lr_step) for job in found[::3]] == [(4, 0), (4, 1), (4, -2), (0, 0)]
    assert len({(job.seed, job.lr_step, job.recipe) for job in found}) == len(found)


def test_rungs_are_the_probes() -> None:
    assert {job.rungs for job in dense(probe={"steps": 8, "rungs": [2, 4]})} == {(2, 4)}


def test_numbers_begin_where_they_are_asked_to() -> None:
    later = dense_jobs(plan(), "mlp", DESCRIBED, first=10)
    assert [job.number for job in later] == [10, 11, 12]
    assert [job.recipe for job in later] == [job.recipe for job in dense()]


def test_a_task_list_that_grows_leaves_the_trials_of_a_task_as_they_are() -> None:
    task = plan().tasks[0].model_dump(mode="json")
    grown = plan(tasks=[{**task, "name": "other"}, task, {**task, "name": "wide"}])
    assert dense_jobs(grown, "mlp", DESCRIBED) == dense()


def test_more_seeds_keep_the_numbers_of_the_first_ones() -> None:
    fewer, more = dense(seeds=[0, 1], lr_steps=[1]), dense(seeds=[0, 1, 2], lr_steps=[1])
    assert more[: len(fewer)] == fewer


def test_long_trainings_are_as_is_and_the_leaders_on_every_seed() -> None:
    study = plan(seeds=[0, 5], probe={"steps": 20}, long={"steps": 70, "top": 2})
    found = long_jobs(study, "mlp", [(HE, 1), (LSUV, 0)], first=30)
    assert [(job.number, job.seed, job.recipe, job.lr_step) for job in found] == [
        (30, 0, OWN, 0),
        (31, 0, HE, 1),
        (32, 0, LSUV, 0),
        (33, 5, OWN, 0),
        (34, 5, HE, 1),
        (35, 5, LSUV, 0),
    ]
    assert {(job.stage, job.steps, job.rungs) for job in found} == {("long", 70, (20, 40, 60))}


def test_long_trainings_repeat_nothing_and_need_no_leader() -> None:
    study = plan(long={"steps": 8})
    assert [job.recipe for job in long_jobs(study, "mlp", [(OWN, 0), (HE, 0), (HE, 0)], 0)] == [OWN, HE]
    assert [job.recipe for job in long_jobs(study, "mlp", [], 0)] == [OWN]
    assert [job.rungs for job in long_jobs(plan(long={"steps": 4}), "mlp", [], 0)] == [()]
    assert long_jobs(plan(), "mlp", [(HE, 0)], 0) == []
