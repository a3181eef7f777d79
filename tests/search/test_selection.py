from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from graphs import mlp

from autoinit.judging.gate import Gain
from autoinit.judging.score import Curve, Reference, score
from autoinit.judging.trials import Candidate, Trial
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.costs import Cost
from autoinit.search.selection import Selection, trial_table

HE = Recipe(base="he_normal")


def record(number: int, recipe: Recipe, last: float, state: str = "complete", lr_step: int = 0) -> Trial:
    curve = Curve((2.3, last), ((2, last),), gradient_range=1.0, seconds=0.5)
    scored = score(curve, Reference(2.3), 2)
    return Trial(number, "search", Candidate(recipe, lr_step), 0, curve, scored, state)  # type: ignore[arg-type]


RECORDS = [
    record(0, OWN, 2.2),
    record(1, HE, 0.5),
    record(2, HE, 0.4, lr_step=1),
    record(3, Recipe(head="zero"), 2.1, "pruned"),
    Trial(4, "search", Candidate(Recipe(head="eighth")), 0, None, None, "failed", "OutOfMemoryError"),
    *(record(5 + i, Recipe(base="he_normal", log2_gain=float(i + 1)), 1.0 + 0.1 * i) for i in range(10)),
]


def selection(kept: bool = False) -> Selection:
    return Selection(
        recipe=OWN if kept else HE,
        plan=resolve(OWN if kept else HE, mlp(), seed=4),
        kept=kept,
        gain=Gain(math.log(0.25), math.log(0.2), math.log(0.3), 3),
        held_back=None,
        lr=0.1,
        why="a reason",
        trials=trial_table(RECORDS, 0.1),
        cost=Cost(12.0, 3456.0, len(RECORDS)),
        graph=mlp(),
        task="cross-entropy, SGD",
        answer="no better" if kept else "better",
        contender=HE,
    )


def test_table_has_a_row_per_trial() -> None:
    table = selection().trials
    assert len(table) == len(RECORDS)
    assert table.recipe[1] == "he_normal"
    assert table.lr[2] == pytest.approx(0.1 * 10**0.5)
    assert table.state[4] == "failed"
    assert table.reason[4] == "OutOfMemoryError"
    assert math.isnan(table.score[4])
    assert trial_table(RECORDS, None).lr.isna().all()


def test_a_search_without_trials_has_an_empty_table_with_columns() -> None:
    assert "score" in trial_table([], 0.1).columns


def test_saved_plan_has_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "init.json"
    selection().save(path)
    assert Plan.load(path) == selection().plan
    provenance = json.loads(path.read_text())["provenance"]
    assert provenance["why"] == "a reason"
    assert provenance["gain"]["estimate"] == pytest.approx(math.log(0.25))
    assert provenance["kept"] is False
    assert provenance["answer"] == "better"
