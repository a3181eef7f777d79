from __future__ import annotations

import math

import pytest

from autoinit.judging.score import WORST_FINITE, Curve, Reference, score, tail_loss

UNIT = Reference(1.0)


def test_u_is_the_log_loss_ratio_between_a_floor_and_a_ceiling() -> None:
    reference = Reference(2.0)
    assert reference.u(2.0) == 0.0
    assert reference.u(2.0 / math.e) == pytest.approx(-1.0)
    assert reference.u(1e-9) == pytest.approx(math.log(1e-3))
    assert reference.u(1e9) == reference.u(math.nan) == pytest.approx(math.log(10))


def test_reference_is_the_constant_predictor_s_loss_else_the_first_own_loss() -> None:
    assert Reference.of(2.3, [2.5, 2.4]) == Reference(2.3)
    assert Reference.of(None, [2.5, 2.4]) == Reference(2.5, guess=False)


def test_a_loss_of_exactly_zero_is_none_that_can_be_negative() -> None:
    assert Reference.of(2.3, [2.5, 0.0]) == Reference(2.3)
    assert Reference.of(None, [2.5, 0.0]) == Reference(2.5, guess=False)
    assert Reference.of(None, [0.0, 0.5]) == Reference(0.5, guess=False)
    nothing = Reference.of(None, [0.0, 0.0])
    assert nothing.scale is None
    assert nothing.u(0.0) == pytest.approx(math.log(1e-3))
    assert nothing.u(1.0) == pytest.approx(math.log(10))


def test_losses_that_can_be_negative_are_measured_on_their_own_scale() -> None:
    reference = Reference.of(None, [4.0, 1.0, -4.0])
    assert reference.scale == 8.0
    assert reference.u(4.0) == 0.0
    assert reference.u(-4.0) == pytest.approx(-1.0)


def test_score_is_its_formula() -> None:
    curve = Curve(losses=(1.0,) * 6 + (0.5, 0.25), held_back=((8, 0.125),), gradient_range=3.0)
    scored = score(curve, UNIT, planned=8)
    assert scored.training == pytest.approx((math.log(0.5) + math.log(0.25)) / 2)
    assert scored.held_back == pytest.approx(math.log(0.125))
    assert scored.stability == pytest.approx(0.15)
    assert scored.total == pytest.approx(0.5 * (scored.training + scored.held_back) + 0.15)


def test_gradient_ranges_beyond_a_thousand_are_alike() -> None:
    dead = [score(Curve((1.0,), gradient_range=found), UNIT, 1).stability for found in (3.0, 16.0, math.inf)]
    assert dead == pytest.approx([0.15] * 3)
    assert score(Curve((1.0,), gradient_range=1.0), UNIT, 1).stability == pytest.approx(0.05)


def test_a_net_without_any_gradient_ranks_with_the_dead() -> None:
    assert score(Curve((1.0,), gradient_range=None), UNIT, 1).stability == pytest.approx(0.15)


def test_the_gradient_range_fades_after_the_step_at_which_it_is_taken() -> None:
    at = {steps: score(Curve((1.0,) * steps, gradient_range=3.0), UNIT, 240).stability for steps in (8, 20, 40, 240)}
    assert at == pytest.approx({8: 0.15, 20: 0.15, 40: 0.075, 240: 0.0125})


def test_divergence_is_worst_and_later_is_better() -> None:
    worst = score(Curve((1e9,) * 4, ((4, 1e9),), gradient_range=99.0), UNIT, 4).total
    early = score(Curve((1.0, math.nan), diverged_at=2), UNIT, 100)
    late = score(Curve((1.0,) * 89 + (math.nan,), diverged_at=90), UNIT, 100)
    assert early.diverged
    assert worst <= WORST_FINITE < late.total < early.total


def test_tail_is_the_last_quarter_rounded_up() -> None:
    assert tail_loss(Curve((1.0, 1.0, 1.0, 1.0, math.e**-1)), UNIT) == pytest.approx(-0.5)
    assert tail_loss(Curve(()), UNIT) == pytest.approx(math.log(10))
