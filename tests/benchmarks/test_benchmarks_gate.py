"""The replay of gates from real pairs: its leads, its test and its prior, against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from autoinit.judging.gate import RESCUE, WORTH, planned
from benchmarks.choice.gate_cases import Case, Draw, Gates, cases
from benchmarks.choice.gate_power import levels, outcome, prior


def rows(*ends: tuple[float, float, float]) -> list[dict[str, Any]]:
    """One row for each order: three starts whose losses fall evenly from −1 to these ends over sixteen steps."""
    names = ("own", "redraw", "orthogonal")
    falling = [{name: list(np.linspace(-1, end, 16)) for name, end in zip(names, order, strict=True)} for order in ends]
    return [{"task": "wine", "losses": losses} for losses in falling]


def case(leads: list[float], scale: float = 1.0) -> Case:
    values = np.array(leads)
    return Case("wine", "", values, values, np.full(len(leads), scale), values, 0.5)


def test_every_start_is_the_champion_beside_every_other_at_two_lengths() -> None:
    found = cases(rows((-2.0, -3.0, -4.0), (-2.0, -3.1, -4.3), (-2.1, -3.0, -4.0)))
    assert len(found) == 6 * 2
    (whole,) = (one for one in found if one.name == "redraw for own, 16 steps")
    # The last four of sixteen losses are 12 to 15 fifteenths of their way, 0.9 on average.
    assert whole.leads == pytest.approx([-0.9 * 1.0, -0.9 * 1.1, -0.9 * 0.9])
    assert whole.others == pytest.approx([-0.9 * 2.0, -0.9 * 2.3, -0.9 * 1.9])
    # The last two of the first eight are 6.5 fifteenths of theirs on average, so that the owner falls by 7/15 since.
    assert whole.halfway == pytest.approx([-6.5 / 15 * 1.0, -6.5 / 15 * 1.1, -6.5 / 15 * 0.9])
    assert whole.asked == pytest.approx(WORTH + (1.0 + 1.0 + 1.1) / 3 * 7 / 15)


def test_of_weights_that_stand_still_a_rescue_is_asked() -> None:
    losses = {"own": [0.0] * 16, "redraw": [0.0] * 16, "orthogonal": list(np.linspace(0, -1, 16))}
    found = cases(
        [{"task": "wine", "losses": losses}, {"task": "wine", "losses": {**losses, "orthogonal": [-1.0] * 16}}]
    )
    assert {one.asked for one in found if one.name.startswith("orthogonal for own")} == {RESCUE}


def test_p_values_are_student_s_and_pool_what_is_given() -> None:
    leads = np.array([[0.3, -0.2, 0.9, -0.4], [1.0, 2.0, 1.5, 0.0]])
    found = Gates(leads).p_values(1.0)
    for count in (3, 4):
        expected = stats.ttest_1samp(leads[:, :count] - 1.0, 0.0, axis=1, alternative="less").pvalue
        assert found[count] == pytest.approx(expected)
    # Of 1, 2, 1.5 less 2: mean −0.5, squares 0.5, with 3.5 of six more degrees ½ of eight: error √(½/3).
    pooled = Gates(leads[1:], squares=3.5, freedom=6).p_values(2.0)[3]
    assert pooled == pytest.approx(stats.t.cdf(-0.5 / math.sqrt(0.5 / 3), 8))
    assert Gates(leads[1:], asked=0.51).p_values(2.0)[3] >= 0.4
    assert Gates(leads[1:], asked=0.49).p_values(2.0)[3] < 0.4


def test_a_gate_ends_with_a_win_or_without_a_lead() -> None:
    p = {3: np.array([0.01, 0.03, 0.6, 0.3]), 5: np.array([0.5, 0.02, 0.0, 0.3])}
    # The first wins after three pairs, the second after five, the third has lost by then, the fourth ends undecided.
    assert outcome(p, {3: 0.02, 5: 0.025}) == (0.5, (3 + 5 + 3 + 5) / 4)


def test_drawn_leads_have_the_mean_and_the_deviation_of_the_real_ones() -> None:
    draw = Draw(case([0.0, 0.1, 0.5, 2.0]), np.random.default_rng(0), 40_000)
    assert draw.leads.mean() == pytest.approx(0.0, abs=0.01)
    assert draw.leads.std() == pytest.approx(1.0, abs=0.01)
    # A finalist that leads alike has the same spread, of one degree of freedom in two orders each.
    assert np.mean(draw.with_finals().squares) == pytest.approx(2.0, rel=0.05)


def test_the_prior_of_variances_is_found_again() -> None:
    """Variances that are 2·8/χ² of eight degrees: scale 2, eight degrees of freedom."""
    generator = np.random.default_rng(0)
    variances = 2.0 * 8 / generator.chisquare(8, size=2_000)
    known = [case(list(math.sqrt(variance) * generator.standard_normal(20))) for variance in variances]
    scale, freedom = prior(known, "one scale")
    assert scale == pytest.approx(2.0, rel=0.1)
    assert freedom == pytest.approx(8.0, rel=0.25)


@pytest.mark.parametrize("pairs", [3, 4, 8])
def test_the_levels_of_the_gate_are_those_that_are_worked_out(pairs: int) -> None:
    used = planned(pairs)
    assert levels(tuple(used), draws=100_000) == pytest.approx(used, rel=0.06)
