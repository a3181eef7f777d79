"""The gate's verdicts, against values worked out by hand and against scipy's own t distribution."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
from scipy import special, stats

from autoinit.judging.gate import (
    FEWEST_STEPS,
    LEVEL_OF_A_PAIR,
    LOOKS,
    RESCUE,
    STILL,
    WORTH,
    Arm,
    Gain,
    Pair,
    Spread,
    Verdict,
    planned,
)
from autoinit.judging.gate import judge as judge_at

LEVEL = 0.02
NOISE = (-0.001, 0.0, 0.001)
"""Of three pairs: standard error 0.001/√3 = 0.00058, so t is in the hundreds for a lead of a tenth."""


def pairs(
    *champions: float,
    own: float = -0.5,
    own_halfway: float | None = None,
    halfway: float | None = None,
    held_back: tuple[float, float] | None = (-0.9, -0.4),
    earlier: tuple[float, float] | None = None,
    steps: int = 64,
) -> list[Pair]:
    """Pairs with these ends of the champion's; the owner's, and where both were halfway, are the same in all.

    Left out, both have stood where they end since halfway. `held_back` and `earlier` are (champion, own).
    """
    ours, theirs = held_back or (None, None)
    before, theirs_before = earlier or (ours, theirs)
    return [
        Pair(
            champion=Arm(
                end=end,
                halfway=end if halfway is None else halfway,
                loss=math.exp(end),
                held_back=ours,
                held_back_halfway=before,
            ),
            own=Arm(
                end=own,
                halfway=own if own_halfway is None else own_halfway,
                loss=math.exp(own),
                held_back=theirs,
                held_back_halfway=theirs_before,
            ),
            steps=steps,
        )
        for end in champions
    ]


def around(end: float, **rest: object) -> list[Pair]:
    return pairs(*(end + noise for noise in NOISE), **rest)  # type: ignore[arg-type]


def judge(runs: list[Pair], spread: Spread | None = None, length: float = 10.0) -> Verdict:
    """As if at a look whose level is 2 %."""
    return judge_at(runs, LEVEL, spread or Spread(), length)


# The test


def test_looks_are_taken_after_three_five_and_eight_pairs_the_last_after_as_many_as_are_paid_for() -> None:
    assert LOOKS == (3, 5, 8)
    plans = {pairs: list(planned(pairs)) for pairs in (0, 3.9, 4, 5, 6, 7.9, 8, math.inf)}
    assert plans == {
        0: [3],
        3.9: [3],
        4: [3, 4],
        5: [3, 5],
        6: [3, 5, 6],
        7.9: [3, 5, 7],
        8: [3, 5, 8],
        math.inf: [3, 5, 8],
    }


@pytest.mark.parametrize("pairs", LEVEL_OF_A_PAIR)
def test_levels_come_to_five_percent_of_one_look_four_of_two_and_three_and_a_half_of_three(pairs: int) -> None:
    plan = planned(pairs)
    leads = np.random.default_rng(0).standard_normal((200_000, pairs))
    passed = np.zeros(len(leads), bool)
    for look, level in plan.items():
        seen = leads[:, :look]
        t = seen.mean(1) / (seen.std(1, ddof=1) / math.sqrt(look))
        passed |= special.stdtr(look - 1, t) < level
    # A standard error of 200,000 draws is 0.0005, and levels are rounded to a hundredth of themselves.
    assert passed.mean() == pytest.approx({1: 0.05, 2: 0.04, 3: 0.035}[len(plan)], abs=0.0015)
    assert list(plan.values()) == sorted(plan.values()), "late looks, which have more to tell by, have the larger level"


def test_a_clear_lead_wins_and_is_told_as_losses() -> None:
    verdict = judge(around(-1.0, own=-0.5))
    assert verdict.state == "win"
    assert verdict.gain.estimate == pytest.approx(-0.5)
    # e^−1 = 0.368 and e^−0.5 = 0.607
    assert verdict.why == "from these weights the loss reaches 0.368 in 64 steps, from the model's own 0.607"


def test_the_interval_is_student_s_at_the_level_of_the_look() -> None:
    # Differences −0.4, −0.5, −0.6: mean −0.5, deviation 0.1, two degrees of freedom; level 0.02 is 96 % two-sided.
    gain = judge(pairs(-0.9, -1.0, -1.1)).gain
    low, high = stats.t.interval(0.96, 2, loc=-0.5, scale=0.1 / math.sqrt(3))
    assert (gain.low, gain.high, gain.coverage) == pytest.approx((low, high, 0.96))
    assert (gain.pairs, gain.steps) == (3, 64)


@pytest.mark.parametrize("deviation", [0.09, 0.1, 0.11])
def test_the_printed_interval_and_the_verdict_say_the_same(deviation: float) -> None:
    # t = 0.5/(d/√3): 9.6, 8.7 and 7.9. The one-sided 2 % point of two degrees of freedom is 4.85, so all are beyond;
    # of a lead of a quarter they are 4.81, 4.33 and 3.94, and none is.
    for lead, beyond in ((0.5, True), (0.25, False)):
        verdict = judge(pairs(*(-0.5 - lead + part * deviation for part in (-1, 0, 1))))
        assert (verdict.gain.high < 0) is beyond
        assert (verdict.why == "its lead is within the noise") is not beyond


def test_pooling_other_finalists_narrows_it() -> None:
    # Leads 0.5, 1.2, −0.2: deviation 0.7, t = 0.5/(0.7/√3) = 1.2, and the 2 % point of two degrees is 4.85. With four
    # more whose squares are 0.06: deviation √((0.98 + 0.06)/6) = 0.416, t = 2.08, still below that of six, 2.61 …
    wide = pairs(-1.0, -1.7, -0.3)
    assert judge(wide).why == "its lead is within the noise"
    assert judge(wide, Spread(0.06, 4)).why == "its lead is within the noise"
    # … and with twelve more of squares 0.06: √(1.04/14) = 0.273, t = 3.18, beyond that of fourteen, 2.26.
    assert judge(wide, Spread(0.06, 12)).state == "win"


def test_the_spread_of_finalists_is_around_each_one_s_own_mean() -> None:
    # (1, 3) lies 1 on both sides of 2, (10, 10, 13) lies 1, 1 and 2 from 11: squares 2 + 6, freedom 1 + 2.
    assert Spread.within([[1.0, 3.0], [10.0, 10.0, 13.0], []]) == Spread(8.0, 3)


def test_no_lead_is_lost_at_once() -> None:
    lost = judge(around(-0.5, own=-0.5))
    assert (lost.state, lost.pairs_needed, lost.open) == ("loss", None, False)
    assert lost.why == "trained on fresh batch orders it is no better than the model's own"
    assert judge(around(-0.49, own=-0.5)).state == "loss"
    assert judge(around(-0.51, own=-0.5)).state != "loss"


def test_noise_names_how_many_pairs_would_do() -> None:
    # Leads 0.2, 0.4, 0.6: mean 0.4, deviation 0.2; t = 3 needs n = (3·0.2/0.4)² = 2.25 pairs: one more than there are.
    assert judge_at(pairs(-0.7, -0.9, -1.1), 0.001).pairs_needed == 4
    # Leads 0.1, 0.4, 0.7: deviation 0.3, n = (3·0.3/0.4)² = 5.06, so six.
    assert judge(pairs(-0.6, -0.9, -1.2)).pairs_needed == 6


def test_a_question_is_open_where_as_many_pairs_as_there_are_looks_for_would_answer_it() -> None:
    # Leads 0.4 − x, 0.4, 0.4 + x: n = (3·x/0.4)², which is 7.56 for 0.3667 and 8.07 for 0.3787.
    eight, nine = (judge(pairs(-0.9 + x, -0.9, -0.9 - x)) for x in (0.3667, 0.3787))
    assert (eight.pairs_needed, eight.open) == (8, True)
    assert (nine.pairs_needed, nine.open) == (9, False)


def test_pairs_without_any_noise_are_told_by_their_sign() -> None:
    assert judge(pairs(-1.0, -1.0, -1.0)).state == "win"
    assert judge(pairs(-0.4, -0.4, -0.4)).state == "loss"


def test_identical_methods_rarely_win() -> None:
    random.seed(0)
    wins = 0
    for _ in range(2000):
        differences = [-0.5 + random.gauss(0, 0.3) for _ in range(max(LOOKS))]
        for look, level in planned(max(LOOKS)).items():
            verdict = judge_at(pairs(*differences[:look], held_back=None), level)
            if verdict.state != "undecided":
                wins += verdict.state == "win"
                break
    # 3.5 in a hundred at the most, by the levels; 2.5 standard errors of 2,000 draws above that.
    assert wins / 2000 <= 0.035 + 2.5 * math.sqrt(0.035 * 0.965 / 2000)


# What counts as a lead


def test_above_a_constant_guess_nobody_leads() -> None:
    """A GPT's default embeddings: its own loss is e^1.2 times a constant guess's, the champion's just above it."""
    verdict = judge(around(0.05, own=1.2, own_halfway=2.0))
    assert verdict.state == "undecided"
    assert verdict.why == "so early both are no better than a constant guess"
    assert (verdict.longer, verdict.open) == (2.0, True)


def test_what_is_above_a_constant_guess_counts_as_the_guess() -> None:
    # Of a lead of 1.05 only 0.05 is below the guess, less than WORTH beyond what the owner makes up.
    late = judge(around(-0.05, own=1.0, own_halfway=1.0))
    assert "are as good with twice the steps" in late.why
    assert judge(around(-0.11, own=1.0, own_halfway=1.0)).state == "win"


@pytest.mark.parametrize(
    ("end", "halfway", "wins"),
    [
        (0.0, 0.0, True),
        (-0.019, 0.0, True),
        (-0.021, -0.021, False),  # it has learned something
        (0.5, 0.519, True),  # an exploded net that stays where it is
        (0.5, 0.521, False),  # one that is on its way down
        (0.5, 0.479, False),  # one that is on its way up may come down again
    ],
)
def test_weights_that_stand_still_are_rescued_in_any_number_of_steps(end: float, halfway: float, wins: bool) -> None:
    verdict = judge(around(-0.5, own=end, own_halfway=halfway, steps=8))
    assert (verdict.state == "win") is wins
    assert verdict.why.startswith("from the model's own weights the loss stays at") is wins


def test_a_rescue_has_to_lead_by_a_fifth_of_a_nat() -> None:
    assert (RESCUE, STILL) == (0.2, 0.02)
    rescued = judge(around(-0.205, own=0.0, steps=8))
    # e^0 = 1, e^−0.205 = 0.815
    assert rescued.why == "from the model's own weights the loss stays at 1, from these it reaches 0.815 in 8 steps"
    assert judge(around(-0.195, own=0.0, steps=8)).state == "undecided"


@pytest.mark.parametrize(
    ("ends", "own", "wins"),
    [
        ((-0.05, -0.3, -0.45), 0.0, True),  # t = −2.3: who leaves a constant guess at all leaves it at any time
        ((0.0, -0.3, -0.45), 0.0, True),
        ((-0.05, -0.1, -0.9), 0.0, False),  # it falls in one run of three
        ((0.05, -0.5, -0.6), -0.04, False),  # the owner's weights have begun to train
        ((-0.03, -0.19, -0.45), 0.0, False),
    ],
)
def test_weights_that_train_in_most_runs_rescue_those_that_stand_still(
    ends: tuple[float, ...], own: float, wins: bool
) -> None:
    verdict = judge(pairs(*ends, own=own, steps=42))
    assert (verdict.state == "win") is wins
    assert verdict.why.startswith("from the model's own weights the loss stays at") is wins


def test_a_rescue_is_in_no_run_behind() -> None:
    behind = [*pairs(-0.5, -0.6, own=0.0, steps=42), *pairs(0.0, own=-0.025, steps=42)]
    assert judge(behind).why == "its lead is within the noise"
    level = [*pairs(-0.5, -0.6, own=0.0, steps=42), *pairs(0.0, own=-0.015, steps=42)]
    assert judge(level).state == "win"


def test_short_runs_tell_nothing_else() -> None:
    assert FEWEST_STEPS == 48
    short = judge(around(-1.5, steps=47))
    assert (short.state, short.longer) == ("undecided", 2.0)
    assert short.why == "in runs of 47 steps a lead tells who is sooner, and not who trains better"
    assert judge(around(-1.5, steps=48)).state == "win"
    # From 8 steps to 48 it is six times as long.
    assert judge(around(-1.5, steps=8)).longer == 6.0
    # Where the training is as long as the runs, they are what it will be.
    assert judge(around(-1.5, steps=8), length=1.0).state == "win"
    # … and no longer than the training.
    assert judge(around(-1.5, steps=8), length=4.0).longer == 4.0


@pytest.mark.parametrize(
    ("champion", "halfway", "wins"),
    [
        # The owner went from −0.2 to −0.5: 0.3 by as many steps again, and WORTH = 0.1 beyond.
        (-0.91, -0.2, True),
        (-0.89, -0.2, False),
        # It stood still from the half on: WORTH alone.
        (-0.61, -0.5, True),
        (-0.59, -0.5, False),
        # It got worse: that is no lead of anybody's.
        (-0.61, -0.8, True),
        (-0.59, -0.8, False),
    ],
)
def test_a_lead_is_more_than_the_owner_makes_up_in_as_many_steps_again(
    champion: float, halfway: float, wins: bool
) -> None:
    assert WORTH == 0.1
    verdict = judge(around(champion, own_halfway=halfway, halfway=champion + 0.3))
    assert (verdict.state == "win") is wins
    assert wins or verdict.why == "the model's own weights are as good with twice the steps, or nearly so"
    assert (verdict.longer, verdict.open) == ((None, False) if wins else (2.0, True))


def test_of_a_training_of_less_than_twice_the_length_they_make_up_less() -> None:
    # log2 √2 = ½: the owner makes up 0.15, so that a lead of 0.26 is enough, and 0.24 is not.
    length = math.sqrt(2.0)
    assert judge(around(-0.76, own_halfway=-0.2, halfway=-0.2), length=length).state == "win"
    verdict = judge(around(-0.74, own_halfway=-0.2, halfway=-0.2), length=length)
    assert verdict.why == "the model's own weights are as good with 1.41 times the steps, or nearly so"


def test_a_lead_is_at_least_half_of_what_a_batch_order_does() -> None:
    def runs(*own: float) -> list[Pair]:
        return [pairs(end - 0.5, own=end)[0] for end in own]

    # Deviations of the owner's own ends: 0.9, of which half is 0.45; 1.1, of which half is 0.55.
    assert judge(runs(-2.4, -1.5, -0.6)).state == "win"
    verdict = judge(runs(-2.6, -1.5, -0.4))
    assert verdict.why == "its lead is smaller than half of what a batch order does"


@pytest.mark.parametrize(
    ("halfway", "length", "wins"),
    [
        # A lead of 0.5 that was h at the half is 0.5 + log2(length)·(0.5 − h) at the length: 1 % has to be left.
        # Ten times: 3.32 doublings; 0.5 − 3.32·0.147 = 0.012, 0.5 − 3.32·0.149 = 0.005.
        (0.647, 10.0, True),
        (0.649, 10.0, False),
        # Twice: one doubling; 0.5 − 0.489 = 0.011, 0.5 − 0.491 = 0.009.
        (0.989, 2.0, True),
        (0.991, 2.0, False),
        # As long as the runs: it is what it is.
        (5.0, 1.0, True),
    ],
)
def test_a_lead_may_shrink_while_it_lasts_as_long_as_the_training(halfway: float, length: float, wins: bool) -> None:
    verdict = judge(around(-1.0, halfway=-0.5 - halfway), length=length)
    assert (verdict.state == "win") is wins
    times = "twice" if length == 2 else "10 times"
    assert wins or verdict.why == f"its lead shrinks so fast that {times} the steps would end it"
    assert (verdict.longer, verdict.open) == (None, False)


# Held-back rows


def test_held_back_rows_may_be_missing() -> None:
    verdict = judge(around(-1.0, held_back=None))
    assert (verdict.state, verdict.held_back) == ("win", None)


def test_one_pair_with_held_back_rows_has_no_interval() -> None:
    one, *others = around(-1.0, held_back=None)
    seen = around(-1.0)[0]
    assert judge([seen, *others]).held_back is None
    assert judge([one, *around(-1.0)[1:]]).held_back is not None


@pytest.mark.parametrize(("behind", "confirmed"), [(0.009, True), (0.011, False)])
def test_held_back_rows_may_be_behind_by_one_percent_of_a_rescue(behind: float, confirmed: bool) -> None:
    verdict = judge(around(-1.0, own=0.0, held_back=(behind, 0.0)))
    assert (verdict.state == "win") is confirmed
    assert confirmed or verdict.why == "held-back data do not confirm it"
    assert not verdict.open, "they tell that nothing is gained"


def test_the_held_back_interval_is_eighty_percent_so_that_its_end_is_the_bound() -> None:
    # Differences −0.2, −0.1, 0: mean −0.1, deviation 0.1; one-sided 90 % of two degrees is 1.886: −0.1 ± 0.109.
    runs = [pairs(-1.0, own=0.0, held_back=(end, 0.0))[0] for end in (-0.2, -0.1, 0.0)]
    verdict = judge(runs)
    assert verdict.held_back is not None
    low, high = stats.t.interval(0.8, 2, loc=-0.1, scale=0.1 / math.sqrt(3))
    assert (verdict.held_back.low, verdict.held_back.high) == pytest.approx((low, high))
    assert (verdict.held_back.coverage, verdict.held_back.steps) == (0.8, 64)
    assert verdict.state == "win", "+0.009 is within the margin"


@pytest.mark.parametrize(
    ("late", "early", "why"),
    [
        # The owner's held-back loss fell from −0.1 to −0.4, by 0.3: the champion has to be as far ahead.
        ((-0.71, -0.4), (-0.3, -0.1), ""),
        ((-0.69, -0.4), (-0.3, -0.1), "on held-back data the model's own weights are as good with twice the steps"),
        # A lead of 0.5 that was 0.64 is 0.5 − 3.32·0.14 = +0.035 at ten times the length; one of 0.66 would be gone
        # (+0.031 behind).
        ((-0.9, -0.4), (-1.04, -0.4), ""),
        ((-0.9, -0.4), (-1.06, -0.4), "on held-back data 10 times the steps would leave it behind"),
    ],
)
def test_a_held_back_lead_holds_at_the_training_s_length(
    late: tuple[float, float], early: tuple[float, float], why: str
) -> None:
    verdict = judge(around(-1.0, held_back=late, earlier=early))
    assert (verdict.state, verdict.why) == (("undecided", why) if why else ("win", verdict.why))
    assert verdict.open is why.endswith("as good with twice the steps")


def test_runs_as_long_as_the_training_leave_nothing_open() -> None:
    verdict = judge(around(-0.55), length=1.0)
    assert verdict.why.startswith("the model's own weights are as good")
    assert (verdict.state, verdict.longer, verdict.open) == ("undecided", None, False)
    assert judge(around(-0.55), length=1.5).longer == 1.5


def grouped(champion: tuple[float, ...], own: tuple[float, ...], rows: tuple[int, ...], **rest: object) -> list[Pair]:
    """A rescue whose held-back losses of groups of rows are these, in units of the reference."""

    def total(losses: tuple[float, ...]) -> float:
        return sum(count * loss for count, loss in zip(rows, losses, strict=True)) / sum(rows)

    held_back = (math.log(total(champion)), math.log(total(own)))
    return [
        dataclasses.replace(
            pair,
            champion=dataclasses.replace(pair.champion, groups=champion),
            own=dataclasses.replace(pair.own, groups=own),
            rows=rows,
            **rest,  # type: ignore[arg-type]
        )
        for pair in around(-1.0, own=0.0, held_back=held_back)
    ]


def test_the_bound_over_rows_is_that_of_a_ratio_of_means() -> None:
    """Against the delta method by hand, for groups of one size."""
    champion, own = (0.4, 0.6, 0.5, 0.7), (1.0, 1.1, 0.9, 1.2)
    found = judge(grouped(champion, own, (8, 8, 8, 8))).held_back
    assert found is not None
    # Means 0.55 and 1.05, ratio 0.5238; residuals x − 0.5238·y: −0.1238, 0.0238, 0.0286, 0.0714.
    residuals = [x - 0.55 / 1.05 * y for x, y in zip(champion, own, strict=True)]
    error = math.sqrt(sum(one**2 for one in residuals) / 3 / 4) / 0.55
    reach = stats.t.ppf(0.9, 3) * error
    assert (found.estimate, found.high - found.estimate) == pytest.approx((math.log(0.55 / 1.05), reach))


def test_a_group_weighs_as_many_rows_as_it_has() -> None:
    # 128 + 128 rows that agree and 13 that do not: the 13 hardly move anything.
    few = judge(grouped((0.2, 0.2, 0.9), (1.0, 1.0, 1.0), (128, 128, 13)))
    assert few.state == "win"
    many = judge(grouped((0.2, 0.2, 1.9), (1.0, 1.0, 1.0), (128, 128, 128)))
    assert (many.state, many.why) == ("undecided", "held-back data do not confirm it")
    assert many.open, "on average they gain, and more rows would tell"


def test_small_groups_give_small_degrees_of_freedom() -> None:
    # Shares ½ and ½: 1/(¼ + ¼) − 1 = 1 degree; 200 and 10 rows: 1/(0.907 + 0.002) − 1 = 0.1, counted as one.
    for rows in ((100, 100), (200, 10)):
        found = judge(grouped((0.5, 0.6), (1.0, 1.0), rows)).held_back
        assert found is not None
        shares = [count / sum(rows) for count in rows]
        mean = 0.5 * shares[0] + 0.6 * shares[1]
        squares = sum((share * (x - mean) / mean) ** 2 for share, x in zip(shares, (0.5, 0.6), strict=True))
        assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.9, 1) * math.sqrt(2 * squares))


def test_of_losses_that_can_be_negative_it_is_that_of_a_difference() -> None:
    runs = grouped((0.4, 0.6, 0.5, 0.7), (1.0, 1.1, 0.9, 1.2), (8, 8, 8, 8), ratios=False)
    found = judge(runs).held_back
    assert found is not None
    # Differences −0.6, −0.5, −0.4, −0.5: deviation 0.0816.
    reach = stats.t.ppf(0.9, 3) * stats.tstd([-0.6, -0.5, -0.4, -0.5]) / 2
    assert found.high - found.estimate == pytest.approx(reach)


def test_the_wider_of_both_bounds_counts_and_one_group_has_none() -> None:
    alone = judge(grouped((0.5,), (1.0,), (8,))).held_back
    assert alone is not None
    assert alone.high == alone.estimate
    runs = grouped((0.4, 0.6, 0.5, 0.7), (1.0, 1.1, 0.9, 1.2), (8, 8, 8, 8))
    spread = [
        dataclasses.replace(pair, champion=dataclasses.replace(pair.champion, held_back=end))
        for pair, end in zip(runs, (-2.0, -0.6, 0.8), strict=True)
    ]
    wide = judge(spread).held_back
    assert wide is not None
    assert wide.high - wide.estimate == pytest.approx(stats.t.ppf(0.9, 2) * 1.4 / math.sqrt(3))


# Words


def test_text() -> None:
    assert str(Gain(math.log(0.5), math.log(0.4), math.log(0.6), 3, 12)).endswith("3 paired runs of 12 steps)")
    assert str(Gain(math.log(0.5), math.log(0.4), math.log(0.6), 3, coverage=0.96)) == (
        "loss × 0.5 (96 % interval 0.4 … 0.6, 3 paired runs)"
    )
    assert Gain(math.log(0.5), 0.0, 0.0, 3).factor == 0.5


def test_a_gain_of_values_that_can_be_negative_is_said_as_a_difference() -> None:
    gain = Gain(-0.5, -0.75, -0.25, 3, 12, unit=40.0)
    assert gain.words == "value lower by 20"
    assert str(gain) == "value lower by 20 (90 % interval 10 … 30, 3 paired runs of 12 steps)"
    assert str(Gain(0.5, -0.25, 1.25, 3, unit=40.0)) == "value higher by 20 (90 % interval -10 … 50, 3 paired runs)"
    assert judge(grouped((0.4, 0.6), (1.0, 1.1), (8, 8))).gain.unit is None


@pytest.mark.parametrize(("own", "steps", "still_open"), [(-0.9, 48, False), (-0.9, 47, True), (0.0, 48, True)])
def test_noise_is_no_answer_before_a_training_has_begun(own: float, steps: int, still_open: bool) -> None:
    # Leads 0.15, 0.19 and 0.6: mean 0.313, deviation 0.249, n = (3·0.249/0.313)² = 5.7; of 0, 0.1 and 0.9 it is 19.7.
    few = judge(pairs(own - 0.15, own - 0.19, own - 0.6, own=own, steps=steps))
    assert (few.pairs_needed, few.longer, few.open) == (6, None, True)
    many = judge(pairs(own, own - 0.1, own - 0.9, own=own, steps=steps))
    assert (many.longer is not None, many.open) == (still_open, still_open)
    assert many.why == "its lead is within the noise"


def test_where_nobody_says_how_long_the_training_is_ten_times_the_runs_is_meant() -> None:
    # As above: ten times is 3.32 doublings, eleven 3.46, nine 3.17.
    assert judge_at(around(-1.0, halfway=-0.5 - 0.647), LEVEL).state == "win"
    assert judge_at(around(-1.0, halfway=-0.5 - 0.649), LEVEL).state == "undecided"


def test_what_is_not_known_is_none() -> None:
    arm, gain = Arm(end=-0.5, halfway=-0.2), Gain(-0.1, -0.2, 0.0, 3)
    assert (arm.held_back, arm.held_back_halfway, arm.held_back_progress) == (None, None, 0.0)
    assert gain.coverage == 0.9
    seen = dataclasses.replace(arm, held_back=-0.4)
    assert (Pair(seen, arm).held_back, Pair(arm, seen).held_back, Pair(seen, seen).held_back) == (None, None, 0.0)
    assert Pair(seen, seen).held_back_halfway is None


def test_held_back_losses_that_are_known_at_the_end_only_are_judged_there() -> None:
    runs = [
        dataclasses.replace(
            pair,
            champion=dataclasses.replace(pair.champion, held_back_halfway=None),
            own=dataclasses.replace(pair.own, held_back_halfway=None),
        )
        for pair in around(-1.0)
    ]
    assert judge(runs).state == "win"


def test_held_back_losses_that_scatter_around_no_gain_leave_nothing_open() -> None:
    verdict = judge([pairs(-1.0, own=0.0, held_back=(end, 0.0))[0] for end in (-0.2, 0.0, 0.2)])
    assert (verdict.why, verdict.open) == ("held-back data do not confirm it", False)


def test_runs_of_unknown_length_may_be_any_length() -> None:
    verdict = judge(around(-1.5, steps=0))
    assert (verdict.state, verdict.longer) == ("undecided", 10.0)


def test_of_two_that_are_above_a_constant_guess_neither_leads() -> None:
    above, below = Arm(end=0.5, halfway=0.5), Arm(end=-0.2, halfway=0.5)
    assert (Pair(above, above).lead, Pair(above, below).lead, Pair(below, above).lead) == (0.0, 0.2, -0.2)


def test_of_differences_the_lead_that_is_left_is_a_tenth_of_the_way_gone() -> None:
    """An agent's return of many units: half a unit more than the other makes up is nothing there."""
    runs = around(
        -13.5, own=-10.0, halfway=-10.5, own_halfway=-7.0
    )  # a lead of 3.5, of which 3 are made up in as many steps again
    assert judge(runs).state == "win"
    apart = [dataclasses.replace(pair, ratios=False, unit=20.0) for pair in runs]
    found = judge(apart)
    assert (found.state, found.why) == (
        "undecided",
        "the model's own weights are as good with twice the steps, or nearly so",
    )
    further = [
        dataclasses.replace(pair, ratios=False, unit=20.0)
        for pair in around(-14.5, own=-10.0, halfway=-11.5, own_halfway=-7.0)
    ]
    assert judge(further).state == "win"


def test_where_no_constant_guess_is_known_none_is_spoken_of() -> None:
    rising = [dataclasses.replace(pair, guess=False) for pair in around(0.4, own=0.9, own_halfway=0.5)]
    assert "both are above what the model's own weights began at, and lower is better" in judge(rising).why
    assert "no better than a constant guess" in judge(around(0.4, own=0.9, own_halfway=0.5)).why
