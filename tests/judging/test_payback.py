"""What a choice saves: the steps by which it is sooner where the owner's weights end."""

from __future__ import annotations

import math

import pytest

from autoinit.judging.payback import Payback, payback

OWN = [10.0 - 0.1 * step for step in range(80)]


def sooner(steps: int) -> list[float]:
    return [loss - 0.1 * steps for loss in OWN]


def test_a_run_that_is_ahead_by_some_steps_saves_them() -> None:
    assert payback([(sooner(20), OWN)]) == Payback(20, 20, 20, at_least=False, pairs=1, length=80)
    assert payback([(OWN, OWN)]) == Payback(0, 0, 0, at_least=False, pairs=1, length=80)


def test_the_median_of_the_pairs_is_told_with_their_interval() -> None:
    found = payback([(sooner(steps), OWN) for steps in (10, 40, 20)])
    assert found is not None
    assert (found.low, found.steps, found.high) == (10, 20, 40)
    assert found.coverage == 0.75
    assert str(found) == "20 of the first 80 steps (75 % interval 10 … 40, 3 paired runs)"
    assert [Payback(1, 1, 1, False, pairs, 8).coverage for pairs in (5, 8)] == [0.9375, 0.9921875]


def test_of_a_loss_that_is_there_from_the_first_only_the_least_is_known() -> None:
    found = payback([([0.1] * 80, OWN)] * 3)
    assert found is not None
    assert found.at_least
    assert str(found) == "at least 70 of the first 80 steps (3 paired runs)"


def test_a_loss_that_comes_back_has_not_been_reached() -> None:
    back = [0.0] * 40 + [20.0] * 40
    assert payback([(back, OWN)]) == Payback(0, 0, 0, False, 1, 80)
    assert payback([(sooner(-20), OWN)]) == Payback(0, 0, 0, False, 1, 80)


def test_noise_of_single_steps_saves_nothing() -> None:
    """A first step below the end of the same noisy run would come long before that end."""
    noise = [(-1) ** step * 0.5 for step in range(80)]
    noisy = [2.0 + each for each in noise]
    found = payback([([*noisy[1:], noisy[0]], noisy)])
    assert found is not None
    assert found.steps in (0, 70)  # of a loss that stands still all of it is where it ends
    falling = [loss + each for loss, each in zip(OWN, noise, strict=True)]
    assert payback([(falling, falling)]) == Payback(0, 0, 0, False, 1, 80)


@pytest.mark.parametrize("broken", [OWN[:30], [*OWN[:30], math.nan], [*OWN[:79], math.inf]])
def test_weights_that_diverge_end_nowhere(broken: list[float]) -> None:
    found = payback([(OWN, broken)])
    assert found is not None
    assert (found.steps, found.at_least) == (70, True)
    reached = payback([(broken, OWN)])
    assert reached is not None
    assert not reached.at_least


def test_nothing_is_told_of_no_runs() -> None:
    assert payback([]) is None
