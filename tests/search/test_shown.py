from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest
from test_selection import RECORDS, selection

from autoinit.judging.payback import Payback
from autoinit.judging.trials import Candidate
from autoinit.recipes.recipe import Recipe
from autoinit.search.costs import Cost
from autoinit.search.selection import Selection, trial_table
from autoinit.search.shown import as_text


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
        "Your own weights are kept: nothing better was found.",
        "  why    a reason",
        "  seen   training loss × 0.25 (90 % interval 0.2 … 0.3, 3 paired runs)",
    ]
    unsure = dataclasses.replace(selection(kept=True), answer="unsure", remedy='budget="91s" would')
    assert unsure.headline == 'Your own weights are kept: cannot tell; budget="91s" would.'
    assert dataclasses.replace(unsure, remedy="").headline == "Your own weights are kept: cannot tell."


def test_cost_is_told_as_a_share_of_the_training_and_beside_what_it_saves() -> None:
    cost = Cost(12.0, 2000.0, 15, training_steps=40_000.0, budget="5 % of a training of 40,000 steps")
    paid = dataclasses.replace(selection(), cost=cost, payback=Payback(90, 80, 97, False, 3, 125))
    lines = str(paid).splitlines()
    place = lines.index("  cost   12 s, 2000 training steps (5 % of the training's 40,000), 15 trials")
    assert lines[place + 1 : place + 3] == [
        "         budget: 5 % of a training of 40,000 steps",
        "  saves  90 of the first 125 steps (75 % interval 80 … 97, 3 paired runs) to the loss that your own weights "
        "end at; the search took 2000",
    ]
    proxied = str(dataclasses.replace(paid, on_proxy=True))
    assert proxied.startswith("A reason (sure, of the proxy).")
    assert "3 paired runs) of the proxy to the loss" in proxied
    assert "saves" not in str(selection())
    assert "% of the training" not in str(selection())


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


def test_words_that_a_narrow_screen_has_no_room_for_are_not_explained() -> None:
    long = Recipe(base="he_normal", log2_gain=0.5, depth_slope=0.5, head="zero", head_bias="zero", calibration="lsuv")
    trials = [*RECORDS, dataclasses.replace(RECORDS[2], number=15, candidate=Candidate(long))]
    found = dataclasses.replace(selection(kept=True), trials=trial_table(trials, 0.1), lr_searched=True)
    wide, narrow = found.to_text(width=200).splitlines(), found.to_text(width=80).splitlines()
    assert any(line.startswith("LSUV: ") for line in wide)
    assert not any(line.startswith("LSUV: ") for line in narrow)
    assert any(line.startswith("gain: ") for line in narrow)
    (row,) = [line for line in narrow if line.startswith("  he_normal, gain × 1.4, last/first × 1.4")]
    assert "…" in row


def test_what_to_do_next_is_the_command_s_where_no_program_holds_the_selection() -> None:
    assert as_text(selection(), after="do this").splitlines()[1] == "  next   do this"
    assert "next" not in as_text(selection(), after="")
