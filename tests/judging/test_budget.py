from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoinit.errors import BudgetError
from autoinit.judging import budget
from autoinit.judging.budget import (
    SMALLEST_ALLOWANCE,
    Allotted,
    Aside,
    Budget,
    Meter,
    Schedule,
    Tally,
    allotted,
    evaluated,
    parse_budget,
)
from autoinit.judging.gate import FEWEST_STEPS


class Clock:
    """Shows the time that a test sets, from 1,000 seconds on: a clock need not start at zero."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return 1000.0 + self.now

    def meter(self, **limits: float) -> Meter:
        """A meter that is started now."""
        return Meter(budget=Budget(**limits), started=self.perf_counter())  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, 60),
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        (" 2 min ", 120),
        ("8h", 28800),
        ("1.5h", 5400),
    ],
)
def test_seconds(given: float | str | None, seconds: float) -> None:
    assert parse_budget(given) == Budget(seconds=seconds)


def test_a_search_has_a_twentieth_of_a_training_whose_length_is_known() -> None:
    assert allotted(None, 40_000) == Allotted(Budget(steps=2000), "5 % of a training of 40,000 steps")
    assert allotted(None, 20_000).budget == Budget(steps=1000)


def test_a_share_that_is_too_small_for_an_answer_is_said_to_be_and_is_made_one() -> None:
    why = "the least that an answer takes, 1,000 steps: 5 % of a training of 3,000 steps would be 150"
    assert allotted(None, 3000) == Allotted(Budget(steps=1000), why)
    pairs = Schedule.of(1000).gate
    assert pairs >= FEWEST_STEPS


def test_a_given_budget_and_a_minute_are_no_share() -> None:
    assert allotted("5m", 40_000) == Allotted(Budget(seconds=300))
    assert allotted(None, None) == Allotted(Budget(seconds=60))
    with pytest.raises(BudgetError):
        allotted("soon", 40_000)


def test_a_budget_is_taken_as_it_is() -> None:
    assert parse_budget(Budget(steps=600)) == Budget(steps=600)


@pytest.mark.parametrize("given", [0, -1, "0s", "soon", "5 days", math.nan, math.inf, [60], True, -np.int64(3)])
def test_bad_budgets(given: object) -> None:
    with pytest.raises(BudgetError, match=r"Got|budget"):
        parse_budget(given)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    assert parse_budget(np.int64(60)) == parse_budget(np.float32(60)) == Budget(seconds=60.0)


@pytest.mark.parametrize(
    ("limits", "got"),
    [
        ({"seconds": "60s"}, "seconds = '60s'"),
        ({"trials": 0}, "trials = 0"),
        ({"steps": -1}, "steps = -1"),
        ({"seconds": 60, "steps": math.inf}, "steps = inf"),
    ],
)
def test_every_limit_is_a_positive_number(limits: dict[str, Any], got: str) -> None:
    with pytest.raises(BudgetError, match=f"Got {got}"):
        Budget(**limits)


def test_a_budget_limits_something() -> None:
    with pytest.raises(BudgetError, match="Got none"):
        Budget()


def test_a_forward_pass_counts_as_a_third_of_a_step() -> None:
    tally = Tally()
    tally.spend(steps=400)
    tally.spend(forwards=300)
    assert tally.steps == pytest.approx(400 + 100)


@pytest.mark.parametrize(
    ("spent", "left", "done"),
    [
        (500, 200, 0.8),  # 20 s are left, at 0.1 s a step
        (900, 100, 0.9),  # 1,000 − 1,000 steps
        (1200, -200, 1.0),
    ],
)
def test_the_meter_counts_whichever_is_nearer_to_its_end(clock: Clock, spent: int, left: float, done: float) -> None:
    meter = clock.meter(seconds=100, steps=1000)
    clock.now = 80
    meter.spend(steps=spent)
    meter.pace(0.1)
    assert meter.left() == pytest.approx(left)
    assert meter.done() == pytest.approx(done)


def test_the_meter_counts_to_a_share_of_each_limit(clock: Clock) -> None:
    """At 80 s and 600 steps: 0.7·100 s − 80 s are −10 s of 0.1 s a step; 0.7·1,000 − 600 are 100 steps."""
    by_clock, by_steps = clock.meter(seconds=100), clock.meter(steps=1000)
    clock.now = 80
    by_clock.pace(0.1)
    by_steps.spend(steps=600)
    assert (by_clock.left(0.7), by_steps.left(0.7)) == pytest.approx((-100, 100))
    assert (by_clock.done(), by_steps.done()) == pytest.approx((0.8, 0.6))


def test_what_has_no_limit_is_never_done(clock: Clock) -> None:
    meter = clock.meter(trials=5)
    clock.now = 1e6
    meter.pace(1.0)
    meter.spend(steps=1e6)
    assert (meter.left(), meter.done()) == (math.inf, 0.0)


def test_the_clock_limits_no_steps_before_one_was_measured(clock: Clock) -> None:
    assert clock.meter(seconds=100).left() == math.inf
    assert clock.meter(seconds=100, steps=1000).left() == 1000
    assert clock.meter(steps=1000).left() == 1000


def test_nothing_is_spent_before_anything_ran(clock: Clock) -> None:
    meter = clock.meter(seconds=100)
    assert (meter.steps, meter.seconds, meter.step_seconds, meter.paced, meter.begun) == (0, 0, 0, (0, 0, 0), 0)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (50, 400),  # 40 s are left, still at the 0.1 s of the first measurement
        (51, 40.8),  # at 50 s for 51 steps
        (200, 160),  # at 50 s for 200 steps
    ],
)
def test_the_pace_is_refined_once_more_than_fifty_steps_were_seen(clock: Clock, steps: int, left: float) -> None:
    meter = clock.meter(seconds=100)
    meter.spend(steps=20)
    clock.now = 10
    meter.pace(0.1)
    meter.spend(steps=steps)
    clock.now = 60
    assert meter.left() == pytest.approx(left)


def test_what_ran_at_another_pace_is_forgotten(clock: Clock) -> None:
    meter = clock.meter(seconds=100)
    meter.pace(1.0)
    meter.spend(steps=1000)
    clock.now = 20
    assert meter.left() == pytest.approx(80 / 0.02)
    meter.pace_again()
    assert meter.left() == pytest.approx(80 / 1.0)
    meter.spend(steps=100)
    clock.now = 60
    assert meter.left() == pytest.approx(40 / 0.4)


def test_few_long_runs_are_told_from_many_short_ones(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device, where setting weights takes longer than to train them for a hundred steps."""
    meter, aside = clock.meter(seconds=100), Aside()
    meter.pace(0.001, aside)
    for _ in range(4):  # of 2 s each, one for the weights and one for a hundred steps; and 2 s to record a step
        with aside.counted(placing=True):
            clock.now += 1
        clock.now += 1
        meter.spend(steps=100)
    with aside.counted():
        clock.now += 2
    assert (aside.seconds, aside.placing, aside.placed, aside.each) == (6, 4, 4, 1)
    assert meter.left() == pytest.approx(90 / (10 / 400))
    assert meter.left(places=10) == pytest.approx((90 - 10) / (4 / 400))
    assert meter.left(after=400) == pytest.approx((90 - 10) / (10 / 400))
    assert meter.left(after=400, places=10) == pytest.approx((90 - 10 - 10) / (4 / 400))
    meter.pace_again()
    assert meter.left(places=10) == pytest.approx((90 - 10) / 0.001)


def test_steps_that_are_taken_before_leave_fewer(clock: Clock) -> None:
    assert clock.meter(steps=1000).left(after=300, places=5) == 700


def test_time_aside_is_counted_where_it_ends_with_an_error(clock: Clock) -> None:
    aside = Aside()

    def slow() -> None:
        clock.now += 3
        raise RuntimeError

    with pytest.raises(RuntimeError), aside.counted(placing=True):
        slow()
    assert (aside.seconds, aside.each) == (3, 3)


def test_shares_of_the_time_are_counted_from_where_the_search_began(clock: Clock) -> None:
    meter = clock.meter(seconds=100)
    meter.pace(1.0)
    meter.begun = 60.0
    assert (meter.left(0.5), meter.left()) == pytest.approx((80, 100))  # 60 s and half of the 40 s after them


@pytest.mark.parametrize("allowance", [SMALLEST_ALLOWANCE, 600, 2_000, 12_000, 1_000_000, math.inf])
def test_a_schedule_fits_its_allowance(allowance: float) -> None:
    schedule = Schedule.of(allowance)
    assert list(schedule.rungs) == sorted(set(schedule.rungs))
    assert schedule.rungs[0] >= 8
    # Owner, three finalists and three pairs, all at full length; the search takes what its half leaves.
    finals = 4 * schedule.final if schedule.finals_until > schedule.search_until else 0
    assert finals + 6 * schedule.gate <= 0.56 * allowance


def test_short_runs_are_evaluated_on_little() -> None:
    assert [len(evaluated(range(40), steps)) for steps in (1, 8, 33, 256)] == [4, 4, 16, 40]
    assert evaluated(range(3), 8) == [0, 1, 2]
    assert evaluated((), 256) == []


def test_the_rows_of_a_short_evaluation_are_spread_over_all() -> None:
    """Held-back batches may be sorted by class: the first of them would be one class only."""
    assert evaluated(range(40), 8) == [0, 10, 20, 30]
    assert evaluated(range(10), 14) == [0, 1, 2, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("allowance", "alone", "schedule"),
    [
        # Below 2,000 steps 0.45 for the search, the rest for the gate; 0.45/8 of all for one probe, 1/6.6 for a run.
        (SMALLEST_ALLOWANCE, math.inf, Schedule((8,), 12, 12, 0.45, 0.45)),  # 8.4; 82.5/6.6 = 12.5
        (600, math.inf, Schedule((8, 16, 33), 50, 50, 0.45, 0.45)),  # 33.75; 330/6.6 = 50
        (600, 40, Schedule((8,), 50, 50, 0.45, 0.45)),  # a quarter of 0.45·40 is 4.5, but eight steps are the least
        (1999, math.inf, Schedule((14, 28, 56, 112), 166, 166, 0.45, 0.45)),  # 112.4; 1099.45/6.6 = 166.6
        # From there on half for the search, and three tenths for the gate.
        (2000, math.inf, Schedule((15, 31, 62, 125), 125, 90, 0.5, 0.7)),  # 125; 600/6.6 = 90.9
        (4000, math.inf, Schedule((15, 31, 62, 125, 250), 250, 181, 0.5, 0.7)),  # 250; 1200/6.6 = 181.8
        (4000, 500, Schedule((15, 31, 62), 181, 181, 0.5, 0.7)),  # a quarter of 0.5·500 is 62.5, less than 250
        (12_000, math.inf, Schedule((8, 16, 32, 64, 128, 256), 256, 256, 0.5, 0.7)),  # 750 and 545: at most 256
        (20_000, math.inf, Schedule((8, 16, 32, 64, 128, 256), 256, 375, 0.5, 0.7)),  # 6000/16 pays for eight pairs
        (math.inf, math.inf, Schedule((8, 16, 32, 64, 128, 256), 256, 512, 0.5, 0.7)),
    ],
)
def test_a_schedule_is_laid_out_in_shares_of_its_allowance(allowance: float, alone: float, schedule: Schedule) -> None:
    assert Schedule.of(allowance, alone) == schedule


def test_a_hurried_meter_has_a_few_seconds_left() -> None:
    meter = Meter(budget=Budget(seconds=1000.0))
    meter.pace(0.01)
    assert meter.left() == pytest.approx(100_000, rel=0.01)
    assert meter.hurry() == pytest.approx(100.0)  # a tenth of the budget
    assert meter.left() == pytest.approx(10_000, rel=0.01)
    assert meter.left(0.5) == pytest.approx(10_000, rel=0.01)  # the deadline is for all that is left
    counted = Meter(budget=Budget(steps=10_000), started=time.perf_counter() - 20)
    counted.spend(steps=1_000)
    assert counted.left() == 9_000
    assert counted.hurry() == pytest.approx(5.0)
    assert counted.left() == pytest.approx(5.0 / 0.02, rel=0.01)  # at the pace so far
    assert counted.hurry() < 5.0  # a second call gives no time back
