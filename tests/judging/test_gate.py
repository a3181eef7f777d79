from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from autoinit.judging.gate import LEVELS, LOOKS, Gain, Pair, Spread, Verdict
from autoinit.judging.gate import judge as judge_at


def pairs(*training: float, held_back: float | None = -0.5, halfway: float = 0.0, own: float = 0.0) -> list[Pair]:
    return [Pair(value, halfway * value, held_back, own) for value in training]


def judge(runs: list[Pair], spread: Spread | None = None) -> Verdict:
    """The first of three planned looks."""
    return judge_at(runs, LEVELS[3][0], spread or Spread())


def test_levels_share_five_percent() -> None:
    for looks, levels in LEVELS.items():
        assert len(levels) == looks
        assert sum(levels) == pytest.approx(0.05)


def test_a_clear_lead_wins() -> None:
    verdict = judge(pairs(-1.0, -1.1, -0.9))
    assert verdict.state == "win"
    assert verdict.gain.estimate == pytest.approx(-1.0)


def test_the_interval_is_student_s() -> None:
    gain = judge(pairs(-1.0, -1.1, -0.9)).gain
    low, high = stats.t.interval(0.9, 2, loc=-1.0, scale=0.1 / math.sqrt(3))
    assert (gain.low, gain.high) == pytest.approx((low, high))


def test_pooling_other_finalists_narrows_it() -> None:
    alone, pooled = judge(pairs(-1.0, -1.7, -0.3)), judge(pairs(-1.0, -1.7, -0.3), Spread(0.06, 4))
    assert alone.state == "undecided"
    assert pooled.state == "win"


def test_no_lead_is_lost_at_once() -> None:
    assert judge(pairs(0.1, -0.1, 0.1)).state == "loss"


def test_noise_is_undecided_and_names_how_many_pairs_would_do() -> None:
    verdict = judge(pairs(-0.3, 0.2, -0.2))
    assert verdict.state == "undecided"
    assert verdict.pairs_needed is not None
    assert verdict.pairs_needed > 3


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (pairs(-0.0050, -0.0051, -0.0049), "smaller than what counts"),
        (pairs(-1.0, -1.1, -0.9, held_back=0.2), "held-back data do not confirm"),
        (pairs(-1.0, -1.1, -0.9, halfway=2.5), "shrinks so fast"),
        (
            [Pair(-0.2, 0.0, -0.5, 0.0), Pair(-0.21, 0.0, -0.5, 2.0), Pair(-0.19, 0.0, -0.5, -2.0)],
            "smaller than what counts",
        ),
    ],
)
def test_what_stops_a_significant_lead(runs: list[Pair], said: str) -> None:
    verdict = judge(runs)
    assert verdict.state == "undecided"
    assert said in verdict.why


def test_a_lead_may_shrink_while_it_lasts() -> None:
    assert judge(pairs(-1.0, -1.1, -0.9, halfway=1.5)).state == "win"


def test_held_back_rows_may_be_missing() -> None:
    verdict = judge(pairs(-1.0, -1.1, -0.9, held_back=None))
    assert (verdict.state, verdict.held_back) == ("win", None)


def test_identical_methods_rarely_win() -> None:
    random.seed(0)
    wins = 0
    for _ in range(2000):
        differences = [random.gauss(0, 0.3) for _ in range(max(LOOKS))]
        for look, level in zip(LOOKS, LEVELS[3], strict=True):
            verdict = judge_at(pairs(*differences[:look], held_back=None), level)
            if verdict.state != "undecided":
                wins += verdict.state == "win"
                break
    # Five in a hundred at the most, by the levels; 2.5 standard errors of 2,000 draws above that.
    assert wins / 2000 <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 2000)


def test_text() -> None:
    assert str(Gain(math.log(0.5), math.log(0.4), math.log(0.6), 3, 12)).endswith("3 paired runs of 12 steps)")
    assert str(Gain(math.log(0.5), math.log(0.4), math.log(0.6), 3)) == (
        "loss × 0.5 (90 % interval 0.4 … 0.6, 3 paired runs)"
    )


def test_a_held_back_lead_that_would_be_gone_at_twice_the_length_is_no_win() -> None:
    def runs(early: float, late: float) -> list[Pair]:
        return [Pair(-0.5 + noise, -0.3, late + noise, 0.0, early + noise) for noise in (-0.001, 0.0, 0.001)]

    assert judge(runs(-0.2, -0.3)).state == "win"
    assert judge(runs(-0.2, -0.12)).state == "win"  # it shrinks, and would still be there
    fading = judge(runs(-0.2, -0.05))
    assert (fading.state, fading.why) == ("undecided", "on held-back data twice the steps would leave it behind")


def test_held_back_batches_that_disagree_do_not_confirm() -> None:
    def runs(*batches: float) -> list[Pair]:
        return [Pair(-0.5 + noise, -0.3, -0.05 + noise, 0.0, None, batches) for noise in (-0.001, 0.0, 0.001)]

    assert judge(runs(-0.06, -0.05, -0.04)).state == "win"
    # Mean -0.05, deviation 0.10 of three batches: the 90 % bound is -0.05 + 1.89·0.10/√3 = +0.06.
    split = judge(runs(-0.15, -0.05, 0.05))
    assert (split.state, split.why) == ("undecided", "held-back data do not confirm it")
    assert judge(runs(-0.05)).state == "win"  # one batch has no spread
