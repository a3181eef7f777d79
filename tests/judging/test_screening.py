from __future__ import annotations

import math

import pytest

from autoinit.judging.score import Glance, Reference
from autoinit.judging.screening import veto

GUESS = Reference(2.3)


def test_weights_that_may_train_are_tried() -> None:
    assert veto(Glance(2.5, 1.0, 0.5), GUESS) == ""
    assert veto(Glance(2000.0, 1.0, 0.5), Reference(2.0)) == ""  # a thousand times a guess, and no more
    assert veto(Glance(2.5, 1e-20, math.inf), GUESS) == ""  # a zero head hides all gradients but its own


@pytest.mark.parametrize(
    ("glance", "why"),
    [
        (Glance(2.3, 0.0, None), "its first gradient is zero on every weight"),
        (Glance(2.3, math.inf, 3.0), "its first gradient is not finite"),
        (Glance(2.3, math.nan, None), "its first gradient is not finite"),
        (
            Glance(4600.0, 1.0, 0.5),
            "its first loss is 2e+03 times that of a constant guess (more than 1000 is hopeless)",
        ),
    ],
)
def test_a_veto_says_why(glance: Glance, why: str) -> None:
    assert veto(glance, GUESS) == why


@pytest.mark.parametrize(
    "own", [Reference(2.3, guess=False), Reference.of(None, [2.3]), Reference.of(2.3, [2.3, -1.0])]
)
def test_a_loss_is_only_compared_with_a_guess(own: Reference) -> None:
    assert veto(Glance(4600.0, 1.0, 0.5), own) == ""
