"""How a study stands, told from its storage: totals, what is left, and what a terminal has room for."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from study_plans import TASK, plan

from autoinit.cli import study_display
from autoinit.recipes.recipe import Recipe
from autoinit.reports import study_page
from autoinit.reports.summary import summarize
from autoinit.screen.columns import shortened
from autoinit.study.coordinator import StudyProgress
from autoinit.study.jobs import LAYERS
from autoinit.study.results import StudyResults
from autoinit.study.status import status_of
from autoinit.study.storage import Store, open_store

THREE = plan(tasks=[{**TASK, "name": name} for name in "abc"], seeds=[0, 1], long={"steps": 20, "top": 2})
"""Three tasks of three candidates, so six probes and then 2 × 3 long trainings each."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'small.db'}", "small", create=True, wait=5)
    opened.begin_run()
    yield opened
    opened.close()


def planned(store: Store, task: str, candidates: int = 3) -> None:
    """Adds a task as the coordinator does once it is built."""
    store.add_task(task, {"described": {"candidates": [{}] * candidates}})
    store.extend(task, [{"number": number} for number in range(2 * candidates)])


def ended(store: Store, task: str, count: int, state: str = "complete", reason: str = "") -> None:
    for claimed in store.claim(task, count):
        line = {"recipe": f"r{claimed.number}", "state": state, "reason": reason}
        store.finish(claimed, line, None if state == "failed" else -float(claimed.number))


def probe(recipe: str, seed: int, total: float | None, **changes: Any) -> dict[str, Any]:
    """The parts of a probe's record line that a status or a report reads."""
    score = None if total is None else {"total": total}
    plain = {"recipe": recipe, "fields": {}, "seed": seed, "lr_step": 0, "stage": "probe", "score": score}
    return {"task": "a", **plain, "state": "complete" if total is not None else "failed", "reason": "", **changes}


def move(store: Store, seconds: float) -> None:
    """Has all that ended, ended so many seconds later."""
    with store.storage.engine.begin() as connection:
        for number, at in connection.execute(sqlalchemy.text("SELECT trial_id, datetime_complete FROM trials")).all():
            if at is not None:
                later = datetime.datetime.fromisoformat(at) + datetime.timedelta(seconds=seconds)
                told = sqlalchemy.text("UPDATE trials SET datetime_complete = :at WHERE trial_id = :number")
                connection.execute(told, {"at": str(later), "number": number})


def test_total_counts_what_is_planned_later_and_guesses_what_is_not_built(store: Store) -> None:
    assert status_of(store, THREE).total is None
    planned(store, "a")
    found = status_of(store, THREE)
    assert [task.total for task in found.tasks] == [12, None, None]
    assert (found.total, found.unbuilt) == (36, 2)
    planned(store, "b", candidates=5)
    assert (status_of(store, THREE).total, status_of(store, THREE).unbuilt) == (42, 1)
    store.add_task("c", {"error": "ValueError: no file"})
    assert (status_of(store, THREE).total, status_of(store, THREE).unbuilt) == (28, 0)
    store.set_task_info("a", LAYERS, None)  # it is done: no long training will come
    assert status_of(store, THREE).total == 22


def test_time_that_is_left_is_what_is_left_at_the_pace_of_this_run(store: Store) -> None:
    planned(store, "a")
    ended(store, "a", 3)
    assert status_of(store, THREE).left is None, "nothing runs"
    move(store, 30)
    store.claim("a", 1)
    found = status_of(store, THREE)
    assert found.left == pytest.approx((36 - 3) * 30 / 3, rel=0.1)
    assert found.ago == 0, "the clock here is behind the coordinator's"
    move(store, -3600)
    found = status_of(store, THREE)
    assert (found.left, found.ago) == (None, None), "what ended before this run tells nothing"
    assert (found.done, found.running, found.total) == (3, 1, 36)


def test_pace_is_of_this_study_alone(store: Store, tmp_path: Path) -> None:
    planned(store, "a")
    store.close()
    other = open_store(f"sqlite:///{tmp_path / 'small.db'}", "smaller", create=True)
    other.add_task("a", {})
    other.extend("a", [{"number": 0}])
    ended(other, "a", 1)
    other.close()
    again = open_store(f"sqlite:///{tmp_path / 'small.db'}", "small", readonly=True)
    assert again.pace().rate is None
    again.close()


def test_status_tells_each_reason_once(store: Store) -> None:
    planned(store, "a")
    ended(store, "a", 2, "failed", "out of memory")
    ended(store, "a", 1)
    told = study_display.status_text(THREE, store)
    assert told.startswith("small: 3 of about 36 trials ended, 2 of them failed\nnothing runs now; the last one ended")
    assert told.endswith("\na: 2 × out of memory")


def test_task_that_cannot_be_built_is_named_with_its_error(store: Store) -> None:
    store.add_task("b", {"error": "Traceback\n  in make\nFileNotFoundError: weights.bin is not here"})
    told = study_display.status_text(THREE, store).splitlines()
    assert any(line.startswith("b ") and line.endswith("failed as a whole") for line in told)
    assert told[-1] == "b failed as a whole: FileNotFoundError: weights.bin is not here"


def test_long_recipes_do_not_make_the_table_wide(store: Store) -> None:
    planned(store, "a")
    recipe = "he_normal " + " ".join(f"field_{number}={number}" for number in range(20))
    for claimed, name in zip(store.claim("a", 2), ("as_is", recipe), strict=True):
        store.finish(claimed, probe(name, 0, -float(claimed.number)), -float(claimed.number))
    told = study_display.status_text(THREE, store).splitlines()
    (row,) = [line for line in told if line.startswith("a ")]
    assert row.endswith(shortened(recipe, study_display.BEST))
    assert max(map(len, told)) < 120


PROBES = [
    *(probe("as_is", seed, 0.0) for seed in range(3)),
    *(probe("sure", seed, total) for seed, total in enumerate([-0.30, -0.31, -0.29])),
    *(probe("lucky", seed, total) for seed, total in enumerate([-2.0, 0.5, 0.9])),  # the lowest score of all
    *(probe("falls", seed, total) for seed, total in enumerate([-3.0, -3.0, None])),
    probe("swept", 0, -9.0, lr_step=1),
    probe("diverges", 0, -9.0, state="diverged"),
    probe("long", 0, -9.0, stage="long"),
]


@pytest.mark.parametrize(
    ("lines", "best", "sure"),
    [
        (PROBES, "sure", True),
        ([one for one in PROBES if one["recipe"] != "sure"], "lucky", False),
        ([one for one in PROBES if one["recipe"] == "as_is"], "", False),
        (
            [*PROBES[:3], *(probe("worse", seed, 0.2) for seed in range(3))],
            "worse",
            False,
        ),
    ],
)
def test_status_and_report_name_the_same_best_by_the_same_rule(
    store: Store, lines: list[dict[str, Any]], best: str, sure: bool
) -> None:
    store.add_task("a", {})
    store.extend("a", [{"number": number} for number in range(len(lines))])
    for claimed, line in zip(store.claim("a", len(lines)), lines, strict=True):
        store.finish(claimed, line, line["score"] and line["score"]["total"])
    status = status_of(store, plan(tasks=[{**TASK, "name": "a"}], seeds=[0, 1, 2])).tasks[0]
    (summary,) = summarize(StudyResults({}, {"a": {}}, list(store.lines())), "probe")
    assert (status.best, status.sure) == (best, sure)
    assert (status.gain is None) == (summary.best is None)
    if summary.best is not None:
        assert status.best == summary.best
        assert status.gain == summary.gains[summary.best].mean
        assert status.sure == summary.gains[summary.best].sure


@pytest.mark.parametrize(("theirs", "before"), [(-0.5, ""), (0.5, "own weights stay ahead; next: ")])
def test_status_names_recipes_as_the_report_does_and_by_key_where_that_is_asked(
    store: Store, theirs: float, before: str
) -> None:
    recipe = Recipe(base="he_normal", log2_gain=1.0, calibration="lsuv")
    planned(store, "a", 1)
    for claimed, (key, total) in zip(store.claim("a", 2), [("as_is", 0.0), (recipe.key, theirs)], strict=True):
        store.finish(claimed, probe(key, 0, total), total)
    one = plan(tasks=[{**TASK, "name": "a"}])
    (summary,) = summarize(StudyResults({}, {"a": {}}, list(store.lines())), "probe")
    told = study_display.status_text(one, store).splitlines()
    assert study_page._row(summary)[1] == f"{before}he_normal, gain × 2, LSUV"
    assert any(line.endswith(f"  {before}he_normal, gain × 2, LSUV") for line in told)
    assert told[-1].startswith("LSUV: each layer's output"), "words that are printed are explained"
    by_key = study_display.status_text(one, store, keys=True).splitlines()
    assert any(line.endswith(f"  {before}{recipe.key}") for line in by_key)


def test_the_table_is_no_wider_than_the_terminal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "autoencoder_sigmoid.digits.adam"
    store.add_task(name, {"described": {"candidates": [{}]}})
    store.extend(name, [{"number": number} for number in range(2)])
    recipe = Recipe(base="he_normal", log2_gain=1.0, depth_slope=1.0, head="zero", calibration="lsuv")
    for claimed, (key, total) in zip(store.claim(name, 2), [("as_is", 0.0), (recipe.key, -1.0)], strict=True):
        store.finish(claimed, probe(key, 0, total), total)
    one = plan(tasks=[{**TASK, "name": name}])
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        told = study_display.status_text(one, store).splitlines()
        assert max(map(len, told)) <= columns
        assert any(line.startswith(name) and "he_normal, gain × 2" in line for line in told)


def test_a_terminal_gets_as_many_lines_as_it_has_and_the_task_at_work_first(tmp_path: Path) -> None:
    names = [f"task-{number:02d}.with_a_long_name.adamw" for number in range(40)]
    many = plan(tasks=[{**TASK, "name": name} for name in names])
    store = open_store(f"sqlite:///{tmp_path / 'small.db'}", "small", create=True)
    store.begin_run()
    planned(store, names[30])
    ended(store, names[30], 2)
    store.claim(names[30], 1)
    whole = study_display.status_text(many, store)
    assert all(name in whole for name in names), "names are never cut"
    short = study_display.status_text(many, store, most=20).splitlines()
    assert len(short) <= 20
    assert short[5].startswith(names[30])
    assert any(line.startswith("and 28 more tasks") for line in short), short
    store.close()


def progress(**changes: Any) -> StudyProgress:
    plain: dict[str, Any] = {
        "done": 5,
        "failed": 0,
        "running": 2,
        "total": 60,
        "unbuilt": 0,
        "seconds": 9.0,
        "left": 99.0,
    }
    return StudyProgress(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"left": None, "done": 0}, "0 of 60 trials"),
        ({}, "5 of 60 trials, 99 s left"),
        ({"unbuilt": 1, "failed": 2}, "5 of about 60 trials, 2 failed, about 99 s left (1 task not begun)"),
        ({"unbuilt": 187, "left": 7300.0}, "5 of about 60 trials, about 2 h 01 min left (187 tasks not begun)"),
    ],
)
def test_estimate_says_what_it_takes_for_granted(changes: dict[str, Any], told: str) -> None:
    assert study_display._told(progress(**changes)) == told


def test_plain_lines_come_at_once_for_news_and_twice_a_minute_for_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = study_display.Lines()
    for seconds, news in [(0.0, ""), (1.0, "a: 3 candidates"), (29.0, ""), (30.5, ""), (31.0, ""), (61.0, "")]:
        shown.show(progress(seconds=seconds, news=news, done=int(seconds)))
    told = [line.partition(" of ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == ["0", "a: 3 candidates", "30", "61"]


def test_bar_writes_to_stderr_alone_and_shows_news_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    bar = study_display.Bar("small")
    bar.show(progress(news="a: [bold] failed"))
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a: [bold] failed" in captured.err
    assert "5 of 60 trials, 99 s left" in captured.err


def test_status_needs_no_torch(tmp_path: Path) -> None:
    """It is asked for often, and torch alone takes seconds to load."""
    modules = "autoinit.study.status, autoinit.study.results, autoinit.study.toml_file, autoinit.reports"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
