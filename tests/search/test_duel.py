"""How many looks the gate takes, by what its budget pays for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from autoinit.judging.gate import Gain, Verdict, planned
from autoinit.judging.trials import Candidate
from autoinit.plans.plan import Plan
from autoinit.recipes.recipe import OWN
from autoinit.search import duel as module
from autoinit.search.campaign import Campaign
from autoinit.search.duel import duel
from autoinit.search.finals import Finals


def campaign(left: float, workers: int = 1, executor: str = "processes") -> Any:
    """A campaign with so many steps left where all workers have something to do, and gate runs of ten steps."""
    made = SimpleNamespace(
        left=lambda until, jobs, places, after: left * min(1.0, jobs / workers),
        left_for_pairs=lambda pairs: Campaign.left_for_pairs(made, pairs),  # type: ignore[arg-type]
        executor=SimpleNamespace(name=executor),
        meter=SimpleNamespace(hurried=False),
        schedule=SimpleNamespace(gate=10),
        bench=SimpleNamespace(task=None),
        training_steps=None,
        length_after=lambda steps: 10.0,
        trials=[None],
        drop=lambda trial, reason: None,
    )
    return made


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """(pairs, level) of each look that is taken; none decides, and a pair costs as many steps as a run has."""
    taken: list[tuple[int, float]] = []

    def undecided(pairs: Sequence[object], level: float, *rest: object) -> Verdict:
        taken.append((len(pairs), level))
        return Verdict("undecided", Gain(0.0, 0.0, 0.0, len(pairs)), None, "")

    monkeypatch.setattr(module, "gate_cost", lambda task, steps: steps / 2)
    monkeypatch.setattr(module, "_duels", lambda campaign, own, champion, plan, orders, steps: [None] * len(orders))
    monkeypatch.setattr(module, "_pairs", lambda campaign, duels, steps: duels)
    monkeypatch.setattr(module, "judge", undecided)
    return taken


def meet(within: Any) -> None:
    own = Candidate(OWN)
    duel(within, Finals(own, own), own, Plan(OWN, 0, ()))


@pytest.mark.parametrize("pairs", range(3, 10))
def test_a_gate_looks_again_after_as_many_pairs_as_are_paid_for(pairs: int, looks: list[tuple[int, float]]) -> None:
    meet(campaign(10 * pairs + 9))
    assert looks == list(planned(pairs).items())


@pytest.mark.parametrize(("left", "taken"), [(59, [3]), (61, [3, 5]), (89, [3, 5]), (91, [3, 5, 8])])
def test_a_look_that_leaves_workers_idle_takes_as_long_as_one_that_does_not(
    left: float, taken: list[int], looks: list[tuple[int, float]]
) -> None:
    """Of six workers: three pairs take 30 of the steps left, and so do one or two."""
    meet(campaign(left, workers=6))
    assert [pairs for pairs, _ in looks] == taken


def test_a_stack_holds_one_pair_at_a_time(looks: list[tuple[int, float]]) -> None:
    # Of eight slots a pair takes two, a quarter: of 164 steps 41 are done with, which is four pairs.
    meet(campaign(164, workers=8, executor="stacked"))
    assert [pairs for pairs, _ in looks] == [3, 4]


def test_a_machine_that_slows_down_takes_no_further_look(looks: list[tuple[int, float]]) -> None:
    within = campaign(49)
    left = iter([49.0] * 20)
    within.left = lambda until, jobs, places, after: 9.0 if looks else next(left)
    meet(within)
    assert [pairs for pairs, _ in looks] == [3]
