"""A search ends where what is left to find is worth less than its cost, and never beside weights that stand still."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from autoinit.judging.gate import STILL, WORTH
from autoinit.judging.score import Curve, Reference
from autoinit.judging.worth import (
    CONFIRMED,
    FIRST,
    FIRST_SPREAD,
    GROWTH,
    SLOPE,
    SLOW,
    Ahead,
    Guess,
    _beyond,
    net_lead,
    slope,
    trains,
    worth,
)

REFERENCE = Reference(2.0)
EXACT = Guess(spread=0.001)
LONG = Ahead(steps=500, gate=256, training=20_000)


def curve(*u: float, held_back: float | None = None) -> Curve:
    """A training whose losses are so many nats above the constant guess's."""
    seen = ((len(u), 2.0 * math.exp(held_back)),) if held_back is not None else ()
    return Curve(tuple(2.0 * math.exp(value) for value in u), seen)


def falling(to: float, steps: int = 64, power: float = 1.0) -> Curve:
    """A training whose log-loss falls by `power` while the steps grow by a factor of e, and ends at `to`."""
    return curve(*(to - power * math.log((step + 1) / steps) for step in range(steps)))


# Whether the owner's weights train


def test_weights_that_stay_at_the_constant_guess_do_not_train() -> None:
    for level in (0.3, 0.0, -0.003):
        assert not trains(curve(*[level] * 8, held_back=level), REFERENCE, Guess(0.001, 2.0))
        assert not trains(curve(*[level] * 8), REFERENCE, Guess())


def test_a_loss_that_falls_to_the_constant_guess_has_not_left_it() -> None:
    assert not trains(curve(0.9, 0.6, 0.3, 0.2, 0.1, 0.05, 0.01, 0.0), REFERENCE, EXACT)


def test_weights_whose_loss_is_below_the_guess_beyond_noise_train() -> None:
    down = curve(0.0, 0.0, 0.0, -0.01, -0.02, -0.03, -0.04, -0.05)
    assert trains(down, REFERENCE, EXACT)
    assert trains(down, REFERENCE, Guess(0.02))
    assert not trains(down, REFERENCE, Guess(0.1)), "so much the constant's own loss differs from batch to batch"
    assert not trains(down, REFERENCE, EXACT, STILL + 0.02), "it has to be as far below as is asked"


def test_where_the_guess_is_unknown_the_curves_own_noise_counts() -> None:
    assert trains(curve(0.0, -0.02, -0.05, -0.08, -0.1, -0.13, -0.16, -0.2), REFERENCE, Guess())
    noisy = [0.2 * random.Random(place).uniform(-1, 1) - 0.03 for place in range(8)]
    assert not trains(curve(*noisy), REFERENCE, Guess())
    assert not trains(curve(*[0.0] * 8), REFERENCE, Guess())
    assert trains(curve(*[-0.1] * 8), REFERENCE, Guess()), "of losses without noise the mean tells"


def test_what_no_constant_reaches_on_the_held_back_rows_has_looked_at_its_input() -> None:
    flat = curve(*[0.0] * 8, held_back=-0.05)
    assert trains(flat, REFERENCE, Guess(0.5, held_back=2.0))
    assert not trains(flat, REFERENCE, Guess(0.5, held_back=2.0 * math.exp(-0.05))), "these rows are easy ones"
    assert not trains(flat, REFERENCE, Guess(0.5))


def test_weights_that_diverge_or_were_hardly_seen_do_not_count_as_training() -> None:
    down = curve(*[-0.5] * 8)
    assert not trains(dataclasses.replace(down, diverged_at=7), REFERENCE, EXACT)
    assert not trains(curve(-0.5), REFERENCE, EXACT)


# What is left to find, and what it costs


def test_a_lead_counts_beyond_what_the_owner_makes_up() -> None:
    own, better = falling(-1.0), falling(-1.6)
    assert net_lead(better, own, REFERENCE) == pytest.approx(0.6 - math.log(2), abs=0.02)
    assert net_lead(falling(-1.6, 32), own, REFERENCE) == pytest.approx(0.6, abs=0.05), "at the steps that it has"


def test_the_slope_is_that_of_the_owner_and_never_less_than_trainings_have_later() -> None:
    assert slope(falling(-2.0, power=1.5), REFERENCE) == pytest.approx(1.5, rel=0.05)
    assert slope(falling(-0.1, power=0.1), REFERENCE) == SLOPE
    assert slope(curve(*[0.0] * 8), REFERENCE) == SLOPE


def test_the_cost_is_what_as_many_steps_of_training_bring() -> None:
    own = falling(-1.0, power=0.2)
    found = worth(own, [], REFERENCE, EXACT, dataclasses.replace(LONG, training=1000))
    assert found.cost == pytest.approx(SLOPE * math.log(1.5))
    assert worth(own, [], REFERENCE, EXACT, dataclasses.replace(LONG, training=math.inf)).cost == 0


def test_before_anybody_was_tried_networks_of_before_tell_what_to_expect() -> None:
    found = worth(curve(*[-0.5] * 8), [], REFERENCE, EXACT, LONG)
    assert found.found == pytest.approx(CONFIRMED * _beyond(FIRST, math.hypot(FIRST_SPREAD, GROWTH * math.sqrt(5))))
    assert found.pays


def test_long_trainings_are_searched_for_and_short_ones_are_not() -> None:
    own = curve(*[-0.5] * 8)
    pays = [worth(own, [], REFERENCE, EXACT, dataclasses.replace(LONG, training=length)).pays for length in
            (400, 1000, 20_000, 100_000)]  # fmt: skip
    assert pays == [False, False, True, True]


def test_the_best_of_those_that_went_furthest_tells_what_is_left() -> None:
    own = falling(-1.0, power=0.2)
    behind, level, ahead = falling(-0.5), falling(-1.1), falling(-2.0)
    short = falling(-3.0, 16)
    levels = [worth(own, [short, behind, *more], REFERENCE, EXACT, LONG).found for more in ((), (level,), (ahead,))]
    assert levels == sorted(levels)
    assert not worth(own, [short, behind], REFERENCE, EXACT, LONG).pays
    assert levels[-1] == pytest.approx(CONFIRMED * net_lead(ahead, own, REFERENCE), rel=0.05)


def test_what_diverged_leads_nothing() -> None:
    own = falling(-1.0)
    ended = dataclasses.replace(falling(-9.0), diverged_at=64)
    assert worth(own, [ended], REFERENCE, EXACT, LONG) == worth(own, [], REFERENCE, EXACT, LONG)


def test_runs_that_are_too_short_for_a_lead_find_nothing() -> None:
    own = curve(*[-0.5] * 8)
    short = dataclasses.replace(LONG, gate=40)
    found = worth(own, [], REFERENCE, EXACT, short)
    assert (found.found, found.too_short, found.pays) == (0.0, True, False)
    assert "in runs of 40 steps only a rescue is believed" in str(found)
    whole = worth(own, [], REFERENCE, EXACT, dataclasses.replace(short, training=40))
    assert whole.found > 0, "runs of the whole training's length leave nothing to foresee"


def test_weights_that_have_hardly_begun_may_still_be_rescued() -> None:
    begun = curve(*[-0.01] * 8)
    found = worth(begun, [], REFERENCE, EXACT, dataclasses.replace(LONG, gate=12))
    assert trains(begun, REFERENCE, EXACT)
    assert found.found == SLOW
    assert found.pays


def test_the_reason_has_both_numbers() -> None:
    found = worth(falling(-1.0, power=0.2), [falling(-1.0)], REFERENCE, EXACT, dataclasses.replace(LONG, training=1000))
    said = str(found)
    assert "worth less than its cost" in said
    assert "its 500 steps, added to a training of 1,000, by 18 %" in said
    assumed = dataclasses.replace(found, ahead=dataclasses.replace(found.ahead, assumed=True))
    assert "a training of about 1,000" in str(assumed)


def test_an_expected_lead_is_the_integral_over_those_that_are_worth_a_change() -> None:
    for mean, deviation in ((-0.3, 0.2), (0.0, 0.5), (1.0, 0.1)):
        width = 0.0005
        grid = [WORTH + width * (place + 0.5) for place in range(20_000)]
        density = [math.exp(-(((x - mean) / deviation) ** 2) / 2) / deviation / math.sqrt(2 * math.pi) for x in grid]
        area = sum(x * p for x, p in zip(grid, density, strict=True)) * width
        assert _beyond(mean, deviation) == pytest.approx(area, abs=1e-4)
