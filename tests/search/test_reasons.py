from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import autoinit
from autoinit.judging.budget import SMALLEST_ALLOWANCE, Budget, Meter
from autoinit.judging.gate import Gain, Verdict
from autoinit.judging.trials import Candidate
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.finals import NoChampion
from autoinit.search.funnel import Found
from autoinit.search.reasons import Reason, reason, too_small

HE = Candidate(Recipe(base="he_normal"))


STEPS = Meter(budget=Budget(steps=1_000), steps=1_000)


def found(state: str, **rest: object) -> Found:
    gain = Gain(-0.2, -0.4, 0.0, 3)
    verdict = Verdict(state, gain, None, "its lead is within the noise", **rest)  # type: ignore[arg-type]
    return Found(Candidate(OWN), HE, verdict=verdict)


def test_a_win_is_the_gate_s_own_words() -> None:
    assert reason(found("win"), STEPS, 0.3) == Reason("better", "its lead is within the noise")


def test_an_undecided_gate_names_the_budget_that_would_decide() -> None:
    said = reason(found("undecided", pairs_needed=6, open=True), STEPS, gate_share=0.5)
    # Twice the pairs in half of the budget: 1.5 times of it, and a fifth to spare.
    assert said == Reason(
        "unsure", "he_normal came as far as the gate, but its lead is within the noise", "Budget(steps=1800) would"
    )


def test_a_gate_of_short_runs_names_the_budget_of_longer_ones() -> None:
    said = reason(found("undecided", longer=4.0, open=True), STEPS, gate_share=0.5)
    assert (said.answer, said.remedy) == ("unsure", "Budget(steps=4800) looks at longer runs")
    longest = found("undecided", longer=4.0, open=True)
    assert longest.verdict is not None
    gain = dataclasses.replace(longest.verdict.gain, steps=512)
    longest = dataclasses.replace(longest, verdict=dataclasses.replace(longest.verdict, gain=gain))
    assert reason(longest, STEPS, 0.5).remedy == "", "no budget pays for longer ones"


def test_a_gate_short_of_held_back_rows_asks_for_them() -> None:
    said = reason(found("undecided", open=True), STEPS, gate_share=0.5)
    assert (said.answer, said.remedy) == ("unsure", "more held-back rows would (val_data)")


def test_an_effect_too_small_for_any_gate_does_not_matter() -> None:
    said = reason(found("undecided", pairs_needed=9), STEPS, 0.3)
    assert (said.answer, said.remedy) == ("no better", "")
    assert said.why.endswith("; an effect of this size is too small for 8 paired runs to show")


@pytest.mark.parametrize("state", ["loss", "undecided"])
def test_what_the_gate_has_answered_has_no_remedy(state: str) -> None:
    said = reason(found(state), STEPS, 0.3)
    assert (said.answer, said.remedy) == ("no better", "")


def test_no_verdict_is_unsure() -> None:
    said = reason(Found(Candidate(OWN), HE), STEPS, 0.3)
    assert said.answer == "unsure"
    assert "led, but the budget ended" in said.why
    assert said.remedy == "Budget(steps=2400) would"


def test_no_champion_is_an_answer_where_all_that_was_tried_is_behind() -> None:
    nobody = NoChampion("nothing was better")
    assert reason(Found(Candidate(OWN), nobody=nobody), STEPS, 0.3) == Reason("no better", "nothing was better")
    early = NoChampion("too early", open=True, longer=3.0)
    timed = Meter(budget=Budget(seconds=1.0))
    timed.started -= 100
    said = reason(Found(Candidate(OWN), nobody=early), timed, 0.3)
    assert said == Reason("unsure", "too early", 'budget="370s" looks at more steps')


def test_what_was_interrupted_cannot_tell() -> None:
    interrupted = Found(Candidate(OWN), nobody=NoChampion("nothing was better"), interrupted=True)
    assert reason(interrupted, STEPS, 0.3) == Reason("unsure", "interrupted by Ctrl-C; nothing was better")


def test_a_budget_too_small_is_answered_with_one_that_does() -> None:
    assert too_small(Meter(budget=Budget(steps=100), steps=5)).remedy == "Budget(steps=160) would"
    slow = too_small(Meter(budget=Budget(seconds=60.0), step_seconds=1.0))
    assert "steps, too few for a choice that can be trusted" in slow.why
    assert slow.remedy in ('budget="310s" would', 'budget="300s" would')


@pytest.mark.parametrize(("steps", "shown"), [(400, 410), (1_234, 1_300)])
def test_budgets_are_rounded_up_to_two_digits(steps: int, shown: int) -> None:
    said = too_small(Meter(budget=Budget(steps=10), steps=steps - SMALLEST_ALLOWANCE + 1))
    assert said.remedy == f"Budget(steps={shown}) would"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipes": "he_normal", "budget": Budget(steps=100_000)}, "every listed recipe was tried"),
        ({"budget": Budget(trials=3, steps=100_000)}, "the 3 trials that it allows were run"),
        ({"budget": Budget(steps=100)}, ""),
    ],
)
def test_a_budget_that_is_not_needed_says_why(changes: dict[str, Any], told: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    pixels, labels = load_digits(return_X_y=True)
    selection = autoinit.select(model, (pixels / 16, labels), executor="sequential", **changes)
    early = selection.cost.early
    assert told in early
    assert bool(early) == bool(told)
    if early:
        assert "of the budget was not needed: " in early
        assert early in str(selection)


def test_a_budget_that_shows_rescues_only_names_the_least_that_shows_more() -> None:
    short = Found(Candidate(OWN), nobody=NoChampion("it trains", open=True, short=True))
    assert reason(short, STEPS, 0.5).remedy == "Budget(steps=1000) looks at smaller effects"
    clocked = Meter(budget=Budget(seconds=3.0), step_seconds=0.01, begun=0.5)
    assert reason(short, clocked, 0.5).remedy == 'budget="13s" looks at smaller effects'
