from __future__ import annotations

import math
import time

import numpy as np
import pytest

from autoinit.errors import BudgetError
from autoinit.judging.budget import FORWARD_COST, SMALLEST_ALLOWANCE, Budget, Meter, Schedule, evaluated, parse_budget


@pytest.mark.parametrize(
    ("given", "seconds"), [(None, 60), (90, 90), (1.5, 1.5), ("90s", 90), ("5m", 300), ("8h", 28800), (" 2 min ", 120)]
)
def test_seconds(given: float | str | None, seconds: float) -> None:
    assert parse_budget(given) == Budget(seconds=seconds)


def test_a_budget_is_taken_as_it_is() -> None:
    assert parse_budget(Budget(steps=600)) == Budget(steps=600)


@pytest.mark.parametrize("given", [0, -1, "0s", "soon", "5 days", math.nan, math.inf, [60], True, -np.int64(3)])
def test_bad_budgets(given: object) -> None:
    with pytest.raises(BudgetError, match=r"Got|budget"):
        parse_budget(given)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    assert parse_budget(np.int64(60)) == parse_budget(np.float32(60)) == Budget(seconds=60.0)


def test_limits_are_numbers() -> None:
    with pytest.raises(BudgetError, match="Got seconds = '60s'"):
        Budget(seconds="60s")  # type: ignore[arg-type]


def test_a_budget_limits_something() -> None:
    with pytest.raises(BudgetError, match="Got none"):
        Budget()


def test_the_meter_counts_whichever_is_nearer_to_its_end() -> None:
    meter = Meter(budget=Budget(seconds=100.0, steps=1000))
    meter.spend(steps=400, forwards=300)
    assert meter.steps == 400 + 300 * FORWARD_COST
    assert meter.left() == pytest.approx(500)
    meter.started = time.perf_counter() - 80
    meter.pace(0.1)
    assert meter.left() == pytest.approx(200, abs=1)
    assert meter.left(0.7) == pytest.approx(-100, abs=1)
    assert meter.done() == pytest.approx(0.8, abs=0.01)
    assert Meter(budget=Budget(trials=5)).left() == math.inf


def test_the_pace_is_refined_by_what_steps_really_take() -> None:
    meter = Meter(budget=Budget(seconds=100.0))
    meter.pace(0.1)
    meter.started -= 50
    meter.spend(steps=250)
    assert meter.left() == pytest.approx(50 / 0.2, rel=0.01)


@pytest.mark.parametrize("allowance", [SMALLEST_ALLOWANCE, 600, 2_000, 12_000, 1_000_000, math.inf])
def test_a_schedule_fits_its_allowance(allowance: float) -> None:
    schedule = Schedule.of(allowance)
    assert list(schedule.rungs) == sorted(set(schedule.rungs))
    assert schedule.rungs[0] >= 8
    # Owner, three finalists and three pairs, all at full length; the search takes what its half leaves.
    finals = 4 * schedule.final if schedule.finals_until > schedule.search_until else 0
    assert finals + 6 * schedule.gate <= 0.56 * allowance


def test_one_trial_alone_is_no_large_part_of_the_time() -> None:
    together = 4_000.0
    assert Schedule.of(together).rungs[-1] == 250
    assert Schedule.of(together, alone=together / 8).rungs[-1] == 62


def test_shares_of_the_time_are_counted_from_where_the_search_began() -> None:
    meter = Meter(budget=Budget(seconds=100.0), step_seconds=1.0)
    meter.begun = 60.0
    assert meter.left(0.5) == pytest.approx(80.0, abs=0.5)
    assert meter.left() == pytest.approx(100.0, abs=0.5)


def test_what_ran_at_another_pace_is_forgotten() -> None:
    meter = Meter(budget=Budget(seconds=1e9))
    meter.pace(1.0)
    meter.spend(steps=1e9)  # hardly any time for so many steps
    assert meter.left() > 2e9
    meter.pace_again()
    assert meter.left() == pytest.approx(1e9, rel=1e-3)


def test_short_runs_are_evaluated_on_little() -> None:
    assert [len(evaluated(range(40), steps)) for steps in (1, 8, 33, 256)] == [4, 4, 16, 40]
    assert evaluated(range(3), 8) == [0, 1, 2]
    assert evaluated((), 256) == []


def test_the_rows_of_a_short_evaluation_are_spread_over_all() -> None:
    """Held-back batches may be sorted by class: the first of them would be one class only."""
    assert evaluated(range(40), 8) == [0, 10, 20, 30]
    assert evaluated(range(10), 14) == [0, 1, 2, 4, 5, 7, 8]


def test_schedules_at_the_two_ends() -> None:
    assert Schedule.of(SMALLEST_ALLOWANCE).rungs == (8,)
    assert Schedule.of(600).rungs == (8, 16, 33)
    assert Schedule.of(600).gate == 50
    assert Schedule.of(12_000).rungs == (8, 16, 32, 64, 128, 256)
