"""The arithmetic of the benchmark of the recommender."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from autoinit.recommender.evaluation import scored
from autoinit.recommender.examples import Results
from benchmarks.recommender.held_out import interval
from benchmarks.recommender.methods import METHODS
from benchmarks.recommender.warm_searches import ALL, COUNTS, FEW, replayed, report


def results() -> Results:
    """Four candidates on three seeds; the third is the best, which the first seed does not show."""
    losses = np.array([[1.0, 1.0, 1.0], [0.2, 0.6, 0.6], [0.4, 0.1, 0.1], [2.0, 2.0, 2.0]])
    task = cast(Any, SimpleNamespace(name="a", features={}))
    return Results(task, ("as_is", "one", "two", "three"), (0, 1, 2), losses, -losses, np.zeros((4, 3), dtype=bool))


def test_a_search_keeps_what_is_best_when_it_looks_and_is_scored_on_the_others() -> None:
    found = results()
    assert COUNTS[:3] == (1, 2, 4)
    assert replayed(found, [3, 2, 1], found.mean((0,)))[:3] == pytest.approx([1.0, 0.0, 0.5 / 0.9])
    assert replayed(found, [3, 2, 1], np.array([1.0, 2.0, 2.0, 0.5]))[:3] == pytest.approx([1.9 / 0.9] * 3)


def test_report_has_a_row_for_each_order_and_time_of_choice() -> None:
    found = {(ALL, "by turns"): [[0.0] * len(COUNTS)], (FEW, "random"): [[1.0] * len(COUNTS), [0.5] * len(COUNTS)]}
    few, end = report(found).splitlines()[2:]
    assert few.startswith(f"| {FEW} | random | 0.75 |")
    assert few.endswith("| 2 |")
    assert end.count("| 0.00 ") == len(COUNTS)


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
