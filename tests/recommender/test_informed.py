"""What short trainings add to the recommender: what leads teach, what is tried next, what is said at the end."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
from once import few_trees, known

from autoinit.knowledge.tables import Knowledge, StudiedTask
from autoinit.recipes.recipe import OWN
from autoinit.recommender.examples import examples_of
from autoinit.recommender.informed import Informed, leads_of, next_to_try
from autoinit.recommender.learner import NEVER, Predicted
from autoinit.recommender.model import Recommender


@cache
def fitted() -> Recommender:
    with few_trees():
        return Recommender.fit(Knowledge(known().tasks[::6]))


def informed() -> Informed:
    found = fitted().informed
    assert found is not None
    return found


def predicted(task: int = 0) -> Predicted:
    examples = examples_of(Knowledge((known().tasks[task],)))
    return fitted().learner.predict(examples.features)


def without_rungs(task: StudiedTask) -> StudiedTask:
    tried = tuple(
        dataclasses.replace(one, outcomes=tuple(dataclasses.replace(probe, rungs=()) for probe in one.outcomes))
        for one in task.tried
    )
    return dataclasses.replace(task, tried=tried)


def test_leads_are_over_as_is_at_the_first_rung() -> None:
    found = examples_of(Knowledge(known().tasks[:1])).results[0]
    began = leads_of(found)
    assert began is not None
    leads, levels = began
    tried = {one.recipe.key: one for one in found.task.tried}

    def first(key: str) -> float:
        return next(one.rungs[0][1] for one in tried[key].outcomes if one.seed == found.seeds[0] and one.lr_step == 0)

    assert found.keys[0] == OWN.key
    assert (leads[0] == 0).all()
    assert leads[1, 0] == pytest.approx(max(-2, min(2, math.log(first(OWN.key) / first(found.keys[1])))))
    assert levels[0] == pytest.approx(math.log(first(OWN.key)) - found.task.features["data_reference"])


def test_records_that_do_not_tell_how_trainings_began_teach_nothing_of_it() -> None:
    tasks = tuple(map(without_rungs, known().tasks[:12]))
    assert leads_of(examples_of(Knowledge(tasks)).results[0]) is None
    with few_trees():
        assert Recommender.fit(Knowledge(tasks)).informed is None


def test_who_leads_is_expected_to_gain_more_and_to_harm_less() -> None:
    before = predicted()
    for place in (1, 5, 9):
        behind, ahead = (informed().after(before, {place: lead}, 0.0) for lead in (-0.5, 0.5))
        assert ahead[0][0] > behind[0][0]
        assert ahead[2][0] < behind[2][0]


def test_the_likeliest_is_tried_first_and_none_twice() -> None:
    before = predicted()
    worth = fitted().worth(before)
    tried: dict[int, float] = {}
    while (place := next_to_try(before, worth, tried, 0)) is not None:
        assert place not in {0, *tried}
        tried[place] = 0.0
    assert next(iter(tried)) == 1 + int(worth[1:].argmax())
    assert len(tried) == len(worth) - 1
    assert next_to_try(before, worth, {}, 0, allowed=[0]) is None


def test_what_may_be_far_better_is_tried_before_what_is_known_to_be_as_good() -> None:
    shape = np.full((4, 10), 0.5)
    gain, spread = np.array([0.0, 0.5, 0.4, 0.45]), np.array([0.0, 0.1, 1.0, 0.01])
    before = Predicted(shape, np.zeros(4), gain, gain - spread, gain + spread)
    assert next_to_try(before, gain, {1: 0.5}, 0) == 2


def test_what_is_said_follows_gain_and_risk() -> None:
    before = predicted()
    sure, never = (Informed(informed().gain, informed().harm, risk, 1.0) for risk in (1.0, NEVER))
    nothing = sure.settled(before, {}, 0.0, 0)
    assert (nothing.answer, nothing.best) == ("keep", 0)
    ahead = {3: 1.5, 4: 0.2}
    assert sure.settled(before, ahead, 0.0, 0).answer == "try"
    assert sure.settled(before, ahead, 0.0, 0).best in ahead
    assert never.settled(before, ahead, 0.0, 0).answer == "unsure"
    normalized = predicted(next(place for place, task in enumerate(known().tasks) if task.family == "cnn_batchnorm"))
    behind = sure.settled(normalized, {3: -2.0, 4: -1.5}, -0.5, 0)
    assert behind.answer == "keep"
    assert set(behind.gain) == set(behind.harm) == set(behind.reach) == {3, 4}
