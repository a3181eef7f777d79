from __future__ import annotations

import math
import statistics

import pytest

from autoinit.judging.curves import CURVES, POINTS, kept_curves, thinned
from autoinit.judging.score import Curve, Reference, score
from autoinit.judging.trials import Candidate, Stage, Trial
from autoinit.recipes.recipe import OWN, Recipe

BEST, NEXT = Recipe(base="orthogonal"), Recipe(base="he_normal")


def trial(number: int, stage: Stage, recipe: Recipe, last: float, steps: int = 400, state: str = "complete") -> Trial:
    losses = tuple(2.3 + (last - 2.3) * step / (steps - 1) for step in range(steps))
    curve = Curve(losses, ((steps // 2, 1.0), (steps, last)))
    return Trial(number, stage, Candidate(recipe), 7, curve, score(curve, Reference(2.3), steps), state)  # type: ignore[arg-type]


def night() -> list[Trial]:
    """More trials than are kept: the best in the middle, the gate at the end."""
    others = [Recipe(base="xavier_normal", log2_gain=0.01 * (place + 1)) for place in range(100)]
    trials = [trial(0, "search", OWN, 2.2)]
    trials += [trial(1 + place, "search", recipe, 1.0 + 0.01 * place) for place, recipe in enumerate(others)]
    trials += [trial(101, "search", NEXT, 0.5), trial(102, "search", BEST, 0.4)]
    pairs = [(OWN, 2.2), (BEST, 0.4)] * 5
    return trials + [trial(103 + place, "gate", recipe, last) for place, (recipe, last) in enumerate(pairs)]


def test_what_tells_the_most_is_kept_within_bounds() -> None:
    kept = kept_curves(night(), BEST, 0.1)
    assert len(kept) == CURVES
    assert [curve.number for curve in kept] == sorted(curve.number for curve in kept)
    assert sum(curve.stage == "gate" for curve in kept) == 10
    assert {0, 101, 102} <= {curve.number for curve in kept}
    assert 100 not in {curve.number for curve in kept}, "the worst of the search"
    assert all(len(curve.steps) == len(curve.losses) == POINTS for curve in kept)
    assert all(curve.length == 400 for curve in kept)
    assert kept[0].held_back == ((200, 1.0), (400, 2.2))


def test_a_kept_curve_has_the_learning_rate_that_it_was_run_with() -> None:
    one = Trial(0, "search", Candidate(OWN, 1), 0, Curve((1.0, 0.5)), None, "complete")
    assert kept_curves([one], None, 0.1)[0].lr == pytest.approx(0.1 * 10**0.5)
    assert kept_curves([one], None, None)[0].lr is None


def test_a_curve_ends_where_its_loss_is_not_finite() -> None:
    curve = Curve((2.0, 3.0, math.inf), ((2, math.nan),), diverged_at=3)
    [kept] = kept_curves([Trial(0, "search", Candidate(OWN), 0, curve, None, "diverged")], None, None)
    assert (kept.steps, kept.losses, kept.held_back, kept.length) == ((1, 2), (2.0, 3.0), (), 3)


def test_a_run_without_a_curve_has_none() -> None:
    assert kept_curves([Trial(0, "search", Candidate(OWN), 0, None, None, "failed")], None, None) == ()


def test_thinned_curve_keeps_its_mean_and_ends() -> None:
    losses = [math.sin(step) + 2 for step in range(600)]
    steps, values = thinned(losses, 60)
    assert len(steps) == len(values) == 60
    assert statistics.fmean(values) == pytest.approx(statistics.fmean(losses))
    assert (steps[0], steps[-1]) == (5.5, 595.5)


def test_short_curve_is_left_as_it_is() -> None:
    assert thinned([3.0, 2.0, 1.0], 60) == ([1, 2, 3], [3.0, 2.0, 1.0])
    assert thinned([], 60) == ([], [])
