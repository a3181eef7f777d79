"""What a searching study tries next: batches that are the same whether it was interrupted or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from graphs import mlp, transformer
from study_plans import plan

from autoinit.graph import Graph
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.recipes.space import Dimension, Space
from autoinit.study.candidates import allowed_space, candidates_of
from autoinit.study.jobs import Described, StudyJob
from autoinit.study.proposals import distributions_of, parameters_of, params_of, search_jobs
from autoinit.study.spec import Study

Judge = Callable[[StudyJob], float | None]


def searching(**changes: Any) -> Study:
    return plan(**{"mode": "search", "trials": 40, "batch": 4, "lr_steps": [1], **changes})


def described(study: Study, graph: Graph | None = None) -> Described:
    architecture = graph or mlp()
    space = allowed_space(study.space, architecture, lr_searched=bool(study.lr_steps))
    found, left_out = candidates_of(study.space, architecture, space, seed=0)
    return Described("f", {}, found, space, left_out, 0.05)


def line(job: StudyJob, total: float | None) -> dict[str, Any]:
    score = None if total is None else {"total": total}
    return {"fields": job.to_data()["recipe"], "lr_step": job.lr_step, "score": score}


def searched(study: Study, told: Described, judge: Judge, until: int | None = None) -> list[StudyJob]:
    """Returns the trials of a search, each batch proposed when the one before it has ended."""
    trials: list[StudyJob] = []
    lines: list[dict[str, Any]] = []
    while more := search_jobs(study, "mlp", told, lines, len(trials)):
        if until is not None and len(trials) >= until:
            break
        trials += more
        lines += [line(job, judge(job)) for job in more]
    return trials


def by_gain(job: StudyJob) -> float:
    """A score whose best lies at a gain of 2."""
    return abs(job.recipe.log2_gain - 1.0) + 0.1 * abs(job.lr_step)


def test_search_begins_with_the_studys_recipes_and_those_that_people_know() -> None:
    study = searching(space={"recipes": ["he_normal", "lsuv"]})
    told = described(study)
    trials = searched(study, told, by_gain)
    known = list(dict.fromkeys([*told.candidates, *told.space.opening]))
    assert [job.recipe for job in trials[: len(known)]] == known
    assert known[0] == OWN
    assert {job.lr_step for job in trials[: len(known)]} == {0}
    assert {job.lr_step for job in trials[len(known) :]} > {0}


def test_trials_are_numbered_without_gap_and_end_where_the_study_says() -> None:
    for trials in (1, 4, 7, 38):
        study = searching(trials=trials)
        found = searched(study, described(study), by_gain)
        assert [job.number for job in found] == list(range(trials))
        assert {(job.stage, job.seed, job.steps) for job in found} == {("probe", 0, 4)}


@pytest.mark.parametrize("at", range(28, 33))
def test_batch_that_was_cut_anywhere_goes_on_the_same(at: int) -> None:
    study = searching(trials=36)
    told = described(study)
    whole = searched(study, told, by_gain)
    done = [line(job, by_gain(job)) for job in whole[:at]]
    batch = at // 4 * 4
    assert search_jobs(study, "mlp", told, done, at) == whole[at : batch + 4]
    # Those of the batch itself do not matter: it is proposed from the batches before it.
    assert search_jobs(study, "mlp", told, done[:batch], at) == whole[at : batch + 4]


def test_proposals_depend_on_seed_and_task_and_on_what_came_before() -> None:
    study = searching()
    told = described(study)
    whole = searched(study, told, by_gain)
    assert searched(study, told, by_gain) == whole
    fixed = len(dict.fromkeys([*told.candidates, *told.space.opening]))
    assert fixed < 36
    done = [line(job, by_gain(job)) for job in whole[:36]]
    turned = [line(job, -by_gain(job)) for job in whole[:36]]

    def proposed(study: Study = study, task: str = "mlp", lines: list[dict[str, Any]] = done) -> list[Recipe]:
        return [job.recipe for job in search_jobs(study, task, told, lines, 36)]

    assert proposed() == [job.recipe for job in whole[36:40]]
    assert proposed(task="other") != proposed()
    assert proposed(searching(seeds=[3])) != proposed()
    assert proposed(lines=turned) != proposed()


def test_search_finds_what_is_better() -> None:
    study = searching(trials=160, batch=8)
    told = described(study)
    trials = searched(study, told, by_gain)
    fixed = len(dict.fromkeys([*told.candidates, *told.space.opening]))
    early, late = trials[fixed : fixed + 24], trials[-24:]
    assert sum(map(by_gain, late)) / 24 < 0.6 * sum(map(by_gain, early)) / 24


def test_failed_trials_and_foreign_recipes_tell_the_sampler_nothing() -> None:
    """A trial without a score, and a recipe that the space has no place for, are as if they had not been."""
    study = searching(space={"recipes": ["he_normal"], "dimensions": ["log2_gain"], "gain": [-1, 1]}, trials=40)
    told = described(study)
    fixed = len(dict.fromkeys([*told.candidates, *told.space.opening]))
    start = -(-fixed // 4) * 4
    inside = [StudyJob("mlp", 0, "probe", Recipe(log2_gain=(g - 8) / 10), 0, 0, 4) for g in range(start)]
    good = [line(job, by_gain(job)) for job in inside]

    def proposed(lines: list[dict[str, Any]]) -> list[StudyJob]:
        return search_jobs(study, "mlp", told, lines, start)

    foreign = [Recipe(base="he_normal"), Recipe(log2_gain=3.0), Recipe(log2_gain=0.5, calibration="lsuv")]
    for recipe in foreign:
        with_foreign = [*good[:-1], line(StudyJob("mlp", 0, "probe", recipe, 0, 0, 4), -100.0)]
        without = [*good[:-1], line(inside[-1], None)]
        assert proposed(with_foreign) == proposed(without), recipe.key
    assert proposed(good) != proposed([line(inside[0], -100.0), *good[1:]]), "what is inside does tell it something"


def test_every_trial_may_have_failed() -> None:
    study = searching(trials=36)
    told = described(study)
    found = searched(study, told, lambda job: None)
    assert len(found) == 36
    assert len({job.recipe for job in found}) > 30


def test_proposals_keep_within_what_the_study_allows() -> None:
    space = {"dimensions": ["log2_gain", "base"], "gain": [0.5, 1.5], "opening": False}
    study = searching(space=space, trials=60, lr_steps=[])
    told = described(study, transformer())
    fixed = len(dict.fromkeys([*told.candidates, *told.space.opening]))
    proposed = searched(study, told, by_gain)[fixed:]
    assert len(proposed) > 20
    for job in proposed:
        assert 0.5 <= job.recipe.log2_gain <= 1.5
        assert job.recipe == Recipe(base=job.recipe.base, log2_gain=job.recipe.log2_gain)
        assert job.lr_step == 0


def test_distributions_are_optunas() -> None:
    space = Space(
        (
            Dimension("base", "as_is", choices=("as_is", "he_normal")),
            Dimension("log2_gain", 0.0, low=-3, high=3),
            Dimension("lr_step", 0, low=-2, high=2),
        ),
        (),
    )
    assert distributions_of(space) == {
        "base": optuna.distributions.CategoricalDistribution(("as_is", "he_normal")),
        "log2_gain": optuna.distributions.FloatDistribution(-3, 3),
        "lr_step": optuna.distributions.IntDistribution(-2, 2),
    }


def test_optunas_verbosity_is_as_before() -> None:
    before = optuna.logging.get_verbosity()
    study = searching()
    search_jobs(study, "mlp", described(study), [], 0)
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("graph", [mlp(), transformer()])
def test_all_that_a_search_can_propose_lies_within_its_parameters(graph: Graph) -> None:
    study = searching(
        space={"recipes": [{"base": "orthogonal", "log2_gain": 5.0, "rules": [["output", "lecun_normal"]]}]}
    )
    told = described(study, graph)
    ranges = parameters_of(study, told)
    trials = searched(study, told, by_gain, until=20)
    assert all(set(params_of(job, ranges)) == set(ranges) for job in trials)
    assert {"rules", "log2_gain", "lr_step", "calibration"} <= set(ranges)
    assert params_of(trials[0], ranges)["rules"] == ""
    assert params_of(trials[1], ranges)["rules"] == "output: lecun_normal"


def test_what_is_the_same_in_all_trials_is_no_parameter() -> None:
    study = plan(space={"recipes": ["he_normal"]}, seeds=[3], lr_steps=[])
    assert set(parameters_of(study, described(study))) == {"base"}
