"""What a recorder makes of the numbers that it is told, and when it asks for them; no model is needed for that."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from autoinit.judging.score import RANGE_STEP, Curve, Glance
from autoinit.probing.recorder import Recorder, log_range, mean_per_row


def asked(recorder: Recorder, last: int, question: Callable[[Recorder], bool]) -> list[int]:
    """The steps up to the last one at which the answer is yes."""
    found = []
    while recorder.steps < last:
        recorder.take(1.0)
        if question(recorder):
            found.append(recorder.steps)
    return found


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(rows, 2), torch.zeros(rows)


def test_a_curve_is_all_that_was_recorded() -> None:
    recorder = Recorder()
    recorder.go_on(2, ())
    assert recorder.take(3.0)
    glance = recorder.look([3.0, 4.0])
    assert recorder.take(2.0)
    assert recorder.range_due
    recorder.take_range([1.0, 100.0])
    assert recorder.evaluate([1.0, 4.0], [batch(30), batch(10)])
    recorder.seconds = 0.5
    assert glance == Glance(3.0, 5.0, math.log10(4 / 3))
    assert recorder.curve() == Curve((3.0, 2.0), ((2, 1.75),), 2.0, None, 0.5, (1.0, 4.0), glance)


def test_a_curve_that_was_given_away_does_not_change() -> None:
    recorder = Recorder()
    recorder.take(1.0)
    recorder.evaluate([1.0], [batch(1)])
    before = recorder.curve()
    recorder.take(2.0)
    recorder.evaluate([2.0], [batch(1)])
    assert (before.losses, before.held_back, before.by_batch) == ((1.0,), ((1, 1.0),), (1.0,))
    assert recorder.curve().by_batch == (2.0,)
    assert recorder.curve().held_back == ((1, 1.0), (2, 2.0))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_diverges_at_its_step(loss: float) -> None:
    training, evaluation = Recorder(), Recorder()
    assert [training.take(value) for value in (1.0, loss)] == [True, False]
    assert training.curve().diverged_at == training.steps == 2
    assert evaluation.take(1.0)
    assert not evaluation.evaluate([1.0, loss], [batch(1), batch(1)])
    assert evaluation.curve().diverged_at == 1
    assert evaluation.curve().held_back[0][0] == 1  # what was not finite is told


def test_it_stops_at_the_rungs_before_the_end_and_at_the_end() -> None:
    recorder = Recorder()
    recorder.go_on(6, (2, 4, 6, 9))
    assert asked(recorder, 8, lambda recorder: recorder.stops_here) == [2, 4, 6]
    recorder.go_on(10, ())
    assert asked(recorder, 10, lambda recorder: recorder.stops_here) == [10]


@pytest.mark.parametrize(
    ("steps", "rungs", "expected"),
    [
        (100, (), [RANGE_STEP]),
        (100, (50,), [RANGE_STEP]),
        (RANGE_STEP, (), [RANGE_STEP]),
        (100, (8, 16), [8, RANGE_STEP]),
        (10, (), [10]),
    ],
)
def test_the_range_is_due_at_its_step_and_at_an_earlier_first_stop(
    steps: int, rungs: tuple[int, ...], expected: list[int]
) -> None:
    recorder = Recorder()
    recorder.go_on(steps, rungs)
    assert asked(recorder, steps, lambda recorder: recorder.range_due) == expected


def test_a_training_that_goes_on_takes_the_range_at_its_step_only() -> None:
    recorder = Recorder()
    recorder.go_on(8, ())
    assert asked(recorder, 8, lambda recorder: recorder.range_due) == [8]
    recorder.go_on(50, (16,))
    assert asked(recorder, 50, lambda recorder: recorder.range_due) == [RANGE_STEP]


def test_without_a_loss_scale_the_first_gradients_are_told_whatever_they_are() -> None:
    recorder = Recorder()
    recorder.go_on(1, ())
    recorder.take(2.0)
    seen = recorder.look([math.inf, 1.0])
    assert seen is recorder.glance is not None
    assert seen.gradient_norm == math.inf
    recorder.take_range([math.inf, 1.0, 10.0])
    assert recorder.curve().gradient_range == 1.0
    recorder.take(2.0)
    assert not recorder.range_due


def test_with_a_loss_scale_both_wait_for_finite_gradients() -> None:
    recorder = Recorder(scaled=True)
    recorder.go_on(100, (1,))
    recorder.take(2.0)
    assert recorder.look([math.inf, 1.0]) is recorder.glance is None
    assert recorder.range_due
    recorder.take_range([math.inf, 1.0])
    recorder.take(1.5)
    assert recorder.look([1.0, 1.0]) == Glance(2.0, math.hypot(1.0, 1.0), 0.0)  # the loss is the first batch's
    assert recorder.range_due
    recorder.take_range([1.0, 10.0])
    recorder.take(1.0)
    assert not recorder.range_due
    assert recorder.curve().gradient_range == 1.0


def test_gradients_that_never_become_finite_are_told_at_the_step_of_the_range() -> None:
    recorder = Recorder(scaled=True)
    recorder.go_on(100, ())
    looks = []
    while recorder.glance is None:
        recorder.take(1.0)
        looks.append(recorder.look([math.inf]))
    assert len(looks) == RANGE_STEP
    assert looks[-1] == Glance(1.0, math.inf, None)


def test_the_mean_is_per_row() -> None:
    assert mean_per_row([1.0, 4.0], [batch(30), batch(10)]) == 1.75


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([1.0, 100.0, 10.0], 2.0),
        ([0.0, 1.0], math.inf),
        ([0.0, 0.0], None),
        ([1.0], None),
        ([], None),
        ([math.nan, 1.0], None),
        ([math.nan, 1.0, 10.0], 1.0),
    ],
)
def test_the_range_is_that_of_the_finite_norms(norms: list[float], expected: float | None) -> None:
    assert log_range(norms) == expected
