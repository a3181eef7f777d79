from __future__ import annotations

import pytest

from autoinit.judging.budget import SMALLEST_ALLOWANCE, Budget, Meter
from autoinit.judging.gate import Gain, Verdict
from autoinit.judging.trials import Candidate
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.funnel import Found
from autoinit.search.reasons import too_small, why

HE = Candidate(Recipe(base="he_normal"))


def found(state: str, pairs_needed: int | None = None, **rest: object) -> Found:
    gain = Gain(-0.2, -0.4, 0.0, 3)
    verdict = Verdict(state, gain, None, "its lead is within the noise", pairs_needed)  # type: ignore[arg-type]
    return Found(Candidate(OWN), HE, verdict=verdict, **rest)  # type: ignore[arg-type]


def test_a_win_is_the_gate_s_own_words() -> None:
    assert why(found("win"), Meter(budget=Budget(steps=600)), 0.3) == "its lead is within the noise"


def test_an_undecided_gate_names_the_budget_that_would_decide() -> None:
    meter = Meter(budget=Budget(steps=1_000), steps=1_000)
    said = why(found("undecided", pairs_needed=6), meter, gate_share=0.5)
    # Twice the pairs in half of the budget: 1.5 times of it, and a fifth to spare.
    assert said == (
        "he_normal came as far as the gate, but its lead is within the noise; Budget(steps=1800) would decide an "
        "effect of this size"
    )


def test_an_effect_too_small_for_any_gate_is_called_so() -> None:
    said = why(found("undecided", pairs_needed=9), Meter(budget=Budget(steps=600)), 0.3)
    assert said.endswith("; an effect of this size is too small for 8 paired runs to show")


def test_no_verdict_and_no_champion() -> None:
    meter = Meter(budget=Budget(steps=600))
    assert "led, but the budget ended" in why(Found(Candidate(OWN), HE), meter, 0.3)
    interrupted = Found(Candidate(OWN), why="nothing was better", interrupted=True)
    assert why(interrupted, meter, 0.3) == "interrupted by Ctrl-C; nothing was better"


def test_a_budget_too_small_is_answered_with_one_that_does() -> None:
    assert "Budget(steps=160) would do" in too_small(Meter(budget=Budget(steps=100), steps=5))
    slow = too_small(Meter(budget=Budget(seconds=60.0), step_seconds=1.0))
    assert "steps, too few for a choice that can be trusted" in slow
    assert slow.endswith(('; budget="310s" would do', '; budget="300s" would do'))


@pytest.mark.parametrize(("steps", "shown"), [(400, 410), (1_234, 1_300)])
def test_budgets_are_rounded_up_to_two_digits(steps: int, shown: int) -> None:
    said = too_small(Meter(budget=Budget(steps=10), steps=steps - SMALLEST_ALLOWANCE + 1))
    assert f"Budget(steps={shown})" in said
