"""The arithmetic of the benchmark of the recommender."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from autoinit.recommender.evaluation import scored
from autoinit.recommender.examples import Results
from benchmarks.recommender.held_out import interval
from benchmarks.recommender.methods import METHODS
from benchmarks.recommender.warm_searches import COUNTS, Searched, probes_to, replayed, report


def results() -> Results:
    """Four candidates on three seeds; the third is the best, which the first seed does not show."""
    losses = np.array([[1.0, 1.0, 1.0], [0.2, 0.6, 0.6], [0.4, 0.1, 0.1], [2.0, 2.0, 2.0]])
    task = cast(Any, SimpleNamespace(name="a", features={}))
    return Results(task, ("as_is", "one", "two", "three"), (0, 1, 2), losses, -losses, np.zeros((4, 3), dtype=bool))


def test_a_search_keeps_what_is_best_on_the_first_seed_and_is_scored_on_the_others() -> None:
    found = replayed(results(), [3, 2, 1])
    assert found.loss.tolist() == [1.0, 0.1, 0.6]
    assert found.regret == pytest.approx([1.0, 0.0, 0.5 / 0.9])


def test_probes_are_counted_to_the_first_time_that_a_loss_is_reached_within_half_of_the_noise() -> None:
    search = Searched(np.zeros(4), np.array([1.0, 0.34, 0.3, 0.9]), noise=0.1)
    assert probes_to(search, 0.3) == 2
    assert probes_to(search, 0.2) == math.inf
    assert probes_to(search, 1.0) == 1


def test_report_has_a_row_for_each_kind_of_search() -> None:
    one = Searched(np.linspace(1, 0, 30), np.linspace(1, 0, 30), 0.0)
    two = Searched(np.zeros(30), np.zeros(30), 0.0)
    cold, warm = report({"cold": [one], "warm": [two]}).splitlines()[2:]
    assert cold.startswith("| cold | 1.000 |")
    assert cold.endswith("| 24 of 24 | 0% |")
    assert warm.count("| 0.000 ") == len(COUNTS)
    assert warm.endswith("| 1 of 24 | 0% |")


def test_trying_every_candidate_once_is_what_no_recommendation_can_beat_but_by_luck() -> None:
    found = results()
    ranking = METHODS["every candidate tried once"](cast(Any, None))(cast(Any, SimpleNamespace(results=[found])), 0)
    done = scored(found, ranking)
    assert done.regret == pytest.approx([0.5 / 0.9] * 3)
    assert done.gain == pytest.approx(0.4)
    assert done.training == pytest.approx([1.4 / 1.0] * 3)  # what trains worst has the highest held-back loss here
    assert not done.harmed


def test_interval_holds_its_statistic() -> None:
    told = interval([0.0, 1.0] * 50)
    middle, low, high = (float(part.strip("[],")) for part in told.split())
    assert low < middle == 0.5 < high
