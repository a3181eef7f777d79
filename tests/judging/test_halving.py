from __future__ import annotations

import dataclasses

import pytest

from autoinit.judging.halving import Halving
from autoinit.judging.score import Score
from autoinit.judging.trials import Candidate, Trial
from autoinit.recipes.recipe import OWN

RUNGS = (10, 20, 40)


def complete(number: int, total: float) -> Trial:
    scored = Score(total, total, total, 0.0, RUNGS[-1])
    return Trial(number, "search", Candidate(OWN), 0, None, scored, "complete")


def test_the_worse_half_ends_at_a_rung() -> None:
    halving = Halving(RUNGS)
    totals = [0.0, 1.0, -1.0, 0.5, -2.0, 0.25]
    ended = [bool(halving.judge(number, 10, total)) for number, total in enumerate(totals)]
    # Places among those so far: 1 of 1, 2 of 2, 1 of 3, 3 of 4, 1 of 5, 4 of 6.
    assert ended == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    "place",
    "2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 31st 101st 102nd 111th 112th 113th".split(),
)
def test_the_reason_gives_the_place(place: str) -> None:
    halving = Halving(RUNGS)
    last = int(place[:-2])
    for number in range(1, last):
        halving.judge(number, 10, float(number))
    assert halving.judge(last, 10, float(last)) == f"in the worse half at step 10: {place} of {last}"


def test_all_reach_the_end_that_reach_the_last_rung() -> None:
    halving = Halving(RUNGS)
    assert [halving.judge(number, 40, float(number)) for number in range(4)] == [""] * 4


def test_ties_go_on() -> None:
    halving = Halving(RUNGS)
    assert [halving.judge(number, 10, 1.0) for number in range(5)] == [""] * 5


def finish(halving: Halving, number: int, early: float, end: float) -> None:
    halving.judge(number, 20, early)
    halving.judge(number, 40, end)
    halving.learn([complete(number, end)])


def test_what_is_too_far_behind_to_catch_the_leader_ends() -> None:
    halving = Halving(RUNGS)
    for number, (early, end) in enumerate([(-1.0, -1.5), (-0.9, -1.6), (-0.8, -1.2), (-1.1, -1.3)]):
        finish(halving, number, early, end)
    for number, worse in enumerate([5.0, 6.0, 7.0, 8.0, 9.0, 10.0], start=4):  # so that the next is in the better half
        halving.judge(number, 20, worse)
    assert halving.judge(10, 20, -0.6) == ""  # 1.0 behind, and 1.5 times the largest gain is 1.05
    assert halving.judge(11, 20, -0.5) == (
        "behind at step 20: it would have to gain 1.1 by step 40 to catch the leader, and none of 4 trials gained more "
        "than 0.7"
    )


@pytest.mark.parametrize(
    ("ends", "last"),
    [
        ([-1.5, -1.25, -1.0, -1.0], -0.75),  # the largest gain is 0.5: from −0.75 to −1.5 there are 1.5·0.5
        ([-1.0, -0.5, -0.5, -0.5], -1.0),  # none gained: only what is no worse than the leader goes on
    ],
)
def test_what_can_just_catch_the_leader_goes_on(ends: list[float], last: float) -> None:
    """Numbers that have no rounding in binary."""
    halving = Halving(RUNGS)
    for number, end in enumerate(ends):
        finish(halving, number, -1.0, end)
    for number in range(4, 10):  # so that the next are in the better half
        halving.judge(number, 20, 9.0)
    assert halving.judge(10, 20, last) == ""
    assert halving.judge(11, 20, last + 2**-20).startswith("behind at step 20")


def test_trials_that_did_not_finish_teach_nothing() -> None:
    """Four trials gain 0.5 and the leader ends at −1.5, whatever is in between of trials that ended early."""
    halving = Halving(RUNGS)
    for number in range(8):
        halving.judge(number, 20, -1.0)
    states = ["pruned", "complete", "diverged", "complete", "failed", "complete", "vetoed", "complete"]
    trials = [complete(number, -1.5 if state == "complete" else -99.0) for number, state in enumerate(states)]
    halving.learn([dataclasses.replace(trial, state=state) for trial, state in zip(trials, states, strict=True)])
    for number in range(8, 16):
        halving.judge(number, 20, 9.0)
    assert halving.judge(16, 20, -0.5) == (
        "behind at step 20: it would have to gain 1 by step 40 to catch the leader, and none of 4 trials gained more "
        "than 0.5"
    )


def test_a_few_gains_do_not_tell_the_largest() -> None:
    halving = Halving(RUNGS)
    for number in range(3):
        finish(halving, number, -5.0, -5.1)
    for number in range(3, 9):
        halving.judge(number, 20, 3.0)
    assert halving.judge(9, 20, 0.0) == ""


def test_rounds_are_recalled_as_if_judged_at_their_rungs() -> None:
    halving = Halving(RUNGS)
    first = {number: {10: -1.0 - number / 10} for number in range(8)}
    later = {number: {20: -2.0 - number / 10, 40: -2.5 - number / 10} for number in range(4, 8)}
    halving.recall({number: totals | later.get(number, {}) for number, totals in first.items()})
    halving.learn([complete(number, later[number][40]) for number in later])
    assert halving.judge(8, 10, -1.25) == "in the worse half at step 10: 6th of 9"
    assert halving.judge(9, 10, -1.75) == ""
    assert halving.judge(10, 20, -1.4) == "in the worse half at step 20: 5th of 5"
    assert halving.judge(11, 20, -2.55) == ""
    for number in range(12, 20):
        halving.judge(number, 20, 3.0)
    assert halving.judge(20, 20, -2.0).startswith("behind at step 20: it would have to gain 1.2 by step 40")


def test_what_a_batch_teaches_holds_from_the_next_one_on() -> None:
    halving = Halving(RUNGS)
    records = [complete(number, -5.0) for number in range(4)]
    for number in range(4):
        halving.judge(number, 20, -4.9)
        halving.judge(number, 40, -5.0)
    for number in range(4, 10):
        halving.judge(number, 20, 3.0)
    assert halving.judge(10, 20, 0.0) == ""
    halving.learn(records)
    assert halving.judge(11, 20, 0.0).startswith("behind at step 20")


def test_decisions_depend_on_the_order_of_numbers_at_each_rung_only() -> None:
    """Trials run one after the other or side by side, as long as each rung is reached in the order of numbers."""
    totals = {10: [0.0, -1.0, -0.5, 0.5], 20: [-0.1, -1.1, -0.2, -3.0]}

    def run(events: list[tuple[int, int]]) -> dict[tuple[int, int], str]:
        halving = Halving(RUNGS)
        return {(number, steps): halving.judge(number, steps, totals[steps][number]) for number, steps in events}

    one_by_one = run([(number, steps) for number in range(4) for steps in (10, 20)])
    side_by_side = run([(number, steps) for steps in (10, 20) for number in range(4)])
    assert one_by_one == side_by_side
    assert any(one_by_one.values())
