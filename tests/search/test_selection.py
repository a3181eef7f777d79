from __future__ import annotations

import dataclasses
import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from graphs import mlp

from autoinit.judging.gate import Gain
from autoinit.judging.score import Curve, Reference, score
from autoinit.judging.trials import Candidate, Trial
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import OWN, Recipe
from autoinit.search.selection import Cost, Selection, trial_table

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


def test_leaderboard_shows_each_recipe_once_best_first_and_the_owner_s_last() -> None:
    lines = str(selection()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("─"))
    end = next(i for i, line in enumerate(lines) if line.startswith("searched: "))
    names = [line[2:].split("  ")[0] for line in lines[start + 1 : end]]
    assert names[0] == "he_normal"
    assert lines[start + 1].startswith("→ he_normal")
    assert names[-1] == "own weights"
    assert len(names) == len(set(names)) == 8
    assert lines[end] == "searched: 13 complete, 1 pruned, 1 failed"
    assert "lower is better" in lines[end + 1]


def test_head_of_the_text() -> None:
    lines = str(selection()).splitlines()
    assert lines[:8] == [
        "A reason (sure).",
        "  next   autoinit.apply_(model, selection)",
        '         selection.save("init.json")',
        "  chose  he_normal",
        "  gain   training loss × 0.25 (90 % interval 0.2 … 0.3, 3 paired runs)",
        "  task   cross-entropy, SGD",
        "  lr     0.1 (not searched)",
        "  cost   12 s, 3456 training steps, 15 trials",
    ]


def test_kept_weights_are_told_with_what_was_seen_of_the_others() -> None:
    """A large gain that is not believed must not stand there as if it were one."""
    assert str(selection(kept=True)).splitlines()[:3] == [
        "Your own weights are kept: no difference that matters.",
        "  why    a reason",
        "  seen   training loss × 0.25 (90 % interval 0.2 … 0.3, 3 paired runs)",
    ]
    unsure = dataclasses.replace(selection(kept=True), answer="unsure", remedy='budget="91s" would')
    assert unsure.headline == 'Your own weights are kept: cannot tell; budget="91s" would.'
    assert dataclasses.replace(unsure, remedy="").headline == "Your own weights are kept: cannot tell."


def test_saved_plan_has_its_provenance(tmp_path: Path) -> None:
    path = tmp_path / "init.json"
    selection().save(path)
    assert Plan.load(path) == selection().plan
    provenance = json.loads(path.read_text())["provenance"]
    assert provenance["why"] == "a reason"
    assert provenance["gain"]["estimate"] == pytest.approx(math.log(0.25))
    assert provenance["kept"] is False
    assert provenance["answer"] == "better"


def searched(**changes) -> Selection:
    return dataclasses.replace(selection(), lr_searched=True, given_lr=0.001, lr_given=True, **changes)


def test_a_searched_rate_is_said_also_where_the_weights_are_kept() -> None:
    for kept in (False, True):
        found = dataclasses.replace(selection(kept), lr_searched=True, given_lr=0.001, lr_given=True)
        assert str(found).splitlines()[0].endswith(" Train with lr 0.1: it was searched, yours was 0.001.")
    default = dataclasses.replace(searched(), lr_given=False)
    assert "it was searched, the default was 0.001" in str(default)
    same = dataclasses.replace(searched(), lr=0.001)
    assert "Train with lr 0.001: others were tried, and yours did best." in str(same)
    assert "Train with" not in str(selection())


def test_what_to_do_next_depends_on_whether_the_model_carries_the_weights() -> None:
    assert "apply_(model, selection)" in str(selection())
    applied = str(dataclasses.replace(selection(), applied=True))
    assert "apply_(model, selection)" not in applied
    assert 'autoinit.apply_(model, "init.json")' in applied
    assert "next" not in str(selection(kept=True))


def test_recipes_are_named_in_short_and_by_key_where_that_is_wanted() -> None:
    found = selection()
    assert "own weights" in found.to_text()
    assert "as_is" not in found.to_text()
    assert "as_is" in found.to_text(keys=True)
    assert found.trials.name[1] == "he_normal"
    assert found.trials.name[0] == "own weights"


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_text_fits_the_screen(width: int) -> None:
    long = dataclasses.replace(searched(), why="from the model's own weights the loss stays, " * 4, task="a task " * 30)
    lines = long.to_text(width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert "last loss" in long.to_text(width=width)


def test_words_of_the_table_are_explained_below_it() -> None:
    trial = dataclasses.replace(RECORDS[1], candidate=Candidate(Recipe(base="he_normal", depth_slope=0.5)))
    found = dataclasses.replace(selection(), trials=trial_table([*RECORDS[:1], trial], 0.1))
    assert "last/first: gain of the last matrix over that of the first" in str(found)
    assert "last/first:" not in str(selection())


def test_repr_is_a_line_and_a_notebook_gets_a_page() -> None:
    found = searched()
    assert repr(found) == "<Selection: better, he_normal, loss × 0.25; 15 trials in 12 s>"
    root = ET.fromstring(found._repr_html_().replace("&nbsp;", " "))
    said = "".join(root.itertext())
    assert "A reason (sure). Train with lr 0.1" in said
    assert [one.text for one in root.iter("summary")] == ["What was tried (15 trials)", "The rest"]
    assert "selection.save" in said
