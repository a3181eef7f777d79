from __future__ import annotations

import math

import pytest

from autoinit.judging.score import Curve, Reference, score, tail_loss

UNIT = Reference(1.0)


def test_u_is_the_log_loss_ratio_between_a_floor_and_a_ceiling() -> None:
    reference = Reference(2.0)
    assert reference.u(2.0) == 0.0
    assert reference.u(2.0 / math.e) == pytest.approx(-1.0)
    assert reference.u(1e-9) == pytest.approx(math.log(1e-3))
    assert reference.u(1e9) == reference.u(math.nan) == pytest.approx(math.log(10))


@pytest.mark.parametrize(
    ("constant", "own", "reference"),
    [
        (2.3, [2.5, 2.4], Reference(2.3)),
        (0.5, [2.5, 2.4], Reference(0.5)),
        (None, [2.5, 2.4], Reference(2.5, guess=False)),
        (0.0, [2.5, 2.4], Reference(2.5, guess=False)),  # a ratio needs a positive reference
        (-1.0, [2.5, 2.4], Reference(2.5, guess=False)),
        (None, [math.nan, math.inf, 2.4], Reference(2.4, guess=False)),
        (2.3, [2.5, -math.inf], Reference(2.3)),  # a divergence tells nothing about the sign of losses
        (None, [math.nan], Reference(1.0, guess=False)),
        (None, [], Reference(1.0, guess=False)),
    ],
)
def test_the_reference_is_a_positive_constant_guess_s_loss_else_the_first_finite_own_one(
    constant: float | None, own: list[float], reference: Reference
) -> None:
    assert Reference.of(constant, own) == reference


def test_a_loss_of_exactly_zero_is_none_that_can_be_negative() -> None:
    assert Reference.of(2.3, [2.5, 0.0]) == Reference(2.3)
    assert Reference.of(None, [2.5, 0.0]) == Reference(2.5, guess=False)
    assert Reference.of(None, [0.0, 0.5]) == Reference(0.5, guess=False)
    nothing = Reference.of(None, [0.0, 0.0])
    assert nothing.scale is None
    assert nothing.u(0.0) == pytest.approx(math.log(1e-3))
    assert nothing.u(1e-12) == 0.0
    assert nothing.u(1.0) == pytest.approx(math.log(10))


@pytest.mark.parametrize(
    ("own", "scale"),
    [
        ([4.0, 1.0, -4.0], 8.0),  # the spread: 4 − (−4)
        ([-10.0, -9.0], 10.0),  # the first loss: |−10| is more than −9 − (−10)
        ([0.25, -0.25], 0.5),  # a small scale is a scale too
        ([math.nan, 4.0, -4.0], 8.0),
    ],
)
def test_losses_that_can_be_negative_are_measured_on_their_own_scale(own: list[float], scale: float) -> None:
    reference = Reference.of(2.3, own)  # what a constant guess loses is no measure of such losses
    first = next(value for value in own if math.isfinite(value))
    assert reference == Reference(first, scale, guess=False)
    assert reference.u(first) == 0.0
    assert reference.u(first - scale) == pytest.approx(-1.0)
    assert reference.u(first + 0.5 * scale) == pytest.approx(0.5)
    assert reference.u(-1e9) == reference.u(-1e10) >= -1000.0
    assert reference.u(1e9) == reference.u(-math.inf) == pytest.approx(math.log(10))


def test_score_is_its_formula() -> None:
    """½·(mean(log ½, log ¼) + log ⅛) + 0.05·3 = −½·(1.5 + 3)·log 2 + 0.15 = −2.25·0.693147 + 0.15."""
    held_back = ((4, 99.0), (8, 0.125))  # the last evaluation counts
    curve = Curve(losses=(1.0,) * 6 + (0.5, 0.25), held_back=held_back, gradient_range=3.0)
    scored = score(curve, UNIT, planned=8)
    assert scored.training == pytest.approx(-1.5 * 0.693147, rel=1e-6)
    assert scored.held_back == pytest.approx(-3 * 0.693147, rel=1e-6)
    assert scored.stability == pytest.approx(0.15)
    assert scored.total == pytest.approx(-1.409581, rel=1e-6)
    assert (scored.steps, scored.diverged) == (8, False)


def test_the_training_part_stands_in_for_an_evaluation_that_there_is_not() -> None:
    scored = score(Curve((math.e**-1,), gradient_range=0.0), UNIT, planned=1)
    assert (scored.training, scored.held_back, scored.total) == pytest.approx((-1.0, -1.0, -1.0))


def test_a_probe_without_a_step_has_the_worst_finite_score() -> None:
    """log 10 + 0.05·3 = 2.302585 + 0.15."""
    assert score(Curve(()), UNIT, planned=8).total == pytest.approx(2.452585, rel=1e-6)


def test_nothing_is_known_of_a_curve_but_what_is_said() -> None:
    curve = Curve((2.0, 1.0))
    assert (curve.steps, curve.held_back, curve.by_batch, curve.seconds) == (2, (), (), 0.0)
    assert (curve.gradient_range, curve.diverged_at, curve.glance) == (None, None, None)


def test_gradient_ranges_beyond_a_thousand_are_alike() -> None:
    dead = [score(Curve((1.0,), gradient_range=found), UNIT, 1).stability for found in (3.0, 16.0, math.inf)]
    assert dead == pytest.approx([0.15] * 3)
    assert score(Curve((1.0,), gradient_range=1.0), UNIT, 1).stability == pytest.approx(0.05)


def test_a_net_without_any_gradient_ranks_with_the_dead() -> None:
    assert score(Curve((1.0,), gradient_range=None), UNIT, 1).stability == pytest.approx(0.15)


def test_the_gradient_range_fades_after_the_step_at_which_it_is_taken() -> None:
    at = {steps: score(Curve((1.0,) * steps, gradient_range=3.0), UNIT, 240).stability for steps in (8, 20, 40, 240)}
    assert at == pytest.approx({8: 0.15, 20: 0.15, 40: 0.075, 240: 0.0125})


@pytest.mark.parametrize(
    ("at", "planned", "early"),
    [(0, 100, 1.0), (2, 100, 0.98), (90, 100, 0.1), (100, 100, 0.0), (1, 1, 0.0), (0, 0, 1.0)],
)
def test_a_divergence_is_beyond_the_worst_finite_score_by_the_share_that_is_missing(
    at: int, planned: int, early: float
) -> None:
    """log 10 + 0.15 + (1 − t/T), whatever was seen before it."""
    worst = score(Curve((1e9,) * 4, ((4, 1e9),), gradient_range=99.0), UNIT, 4).total
    assert worst == pytest.approx(2.452585, rel=1e-6)
    diverged = score(Curve((0.5,) * at, ((at, 0.5),), gradient_range=0.0, diverged_at=at), UNIT, planned)
    assert diverged.total - worst == pytest.approx(early)
    assert (diverged.diverged, diverged.training) == (True, pytest.approx(math.log(10)))


def test_tail_is_the_last_quarter_rounded_up() -> None:
    """u of the losses 1, …, e^−1 is 0, …, −1: ⌈4/4⌉ = 1 of four batches, ⌈5/4⌉ = 2 of five, ⌈9/4⌉ = 3 of nine."""
    tails = [tail_loss(Curve((1.0,) * (steps - 1) + (math.e**-1,)), UNIT) for steps in (1, 4, 5, 8, 9)]
    assert tails == pytest.approx([-1, -1, -1 / 2, -1 / 2, -1 / 3])


def test_relative_losses_are_in_units_of_the_reference_and_can_be_averaged() -> None:
    reference = Reference(2.0)
    assert reference.ratios
    # 1/2 and 3/2 have the mean 1, which is that of the losses 1 and 3 over 2.
    assert [reference.relative(loss) for loss in (1.0, 3.0)] == pytest.approx([0.5, 1.5])
    assert reference.relative(1e9) == pytest.approx(10.0)
    assert reference.relative(0.0) == pytest.approx(1e-3)
    negative = Reference(4.0, scale=8.0)
    assert not negative.ratios
    # (−4 − 4)/8
    assert negative.relative(-4.0) == negative.u(-4.0) == -1.0
