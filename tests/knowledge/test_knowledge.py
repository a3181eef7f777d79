"""What studies found, condensed: of lines, as a file, and of several files together."""

from __future__ import annotations

import dataclasses
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoinit.errors import KnowledgeError
from autoinit.knowledge.files import gathered, knowledge_hash, read_knowledge, shipped, write_knowledge
from autoinit.knowledge.lines import Line, identity, write_lines
from autoinit.knowledge.tables import Knowledge, ProbeResult, knowledge_of, merged
from autoinit.recipes.recipe import Recipe

AS_IS, HE = Recipe(), Recipe(base="he_normal", log2_gain=0.5)


def line(recipe: Recipe = AS_IS, seed: int = 0, fingerprint: str = "0123456789abcdef", **changes: Any) -> Line:
    found = {
        "schema": 2,
        "id": "",
        "study": "small",
        "task": "mlp.digits",
        "family": "mlp",
        "dataset": "digits",
        "fingerprint": fingerprint,
        "features": {"net_depth": 3.0, "parameters": 100, "optimizer": "SGD", "data_mean": None},
        "recipe": recipe.key,
        "fields": json.loads(recipe.to_json()),
        "recipe_features": {"init_gain": 0.25, "unheard_of": 1.0},
        "stage": "probe",
        "seed": seed,
        "lr_step": 0,
        "lr": 0.05,
        "steps": 4,
        "curve": {"losses": [2.0, 1.5, 1.2, 1.0], "held_back": [[2, 1.4], [4, None]], "diverged_at": None},
        "signals": {"loss": 2.0, "gradient_norm": 0.5, "gradient_range": None, "range_at": None},
        "score": {"total": -0.4, "training": -0.5, "held_back": -0.3, "stability": 0.0},
        "state": "complete",
        "reason": "",
        "attempts": 1,
        "spent": 4.5,
        "seconds": 0.1,
        "device": "cpu",
        "threads": 1,
        "autoinit": "0.1.0",
        "torch": "2.13.0",
        "finished": "2026-11-24T02:28:26+00:00",
    } | changes
    return {**found, "id": identity(found)}


def both(**changes: Any) -> list[Line]:
    return [line(recipe, seed, **changes) for recipe in (HE, AS_IS) for seed in (0, 1)]


def test_lines_become_tasks_recipes_and_outcomes() -> None:
    found = knowledge_of([*both(), line(fingerprint="fedcba9876543210", task="other")])
    task, other = found.tasks
    assert (task.name, task.family, task.dataset, other.name) == ("mlp.digits", "mlp", "digits", "other")
    assert task.features == {"net_depth": 3.0}
    assert [one.recipe for one in task.tried] == [AS_IS, HE]
    assert task.tried[1].features == {"init_gain": 0.25}
    outcome = task.tried[1].outcomes[0]
    assert outcome == ProbeResult(0, 0, 4, "complete", -0.4, -0.5, -0.3, ((2, 1.4),), (2.0, 0.5, None), 0.1)
    assert (outcome.loss, outcome.trained) == (-0.3, -0.5)
    assert found.probes == 5


def test_a_trial_counts_once_and_long_trainings_do_not() -> None:
    lines = [*both(), *both(), line(HE, stage="long")]
    assert knowledge_of(lines) == knowledge_of(both())


def test_what_diverged_is_worse_than_anything_finite_and_what_failed_has_no_loss() -> None:
    diverged = knowledge_of([line(state="diverged", score={"total": 3.1, "training": 1.0, "held_back": 1.0})])
    assert diverged.tasks[0].tried[0].outcomes[0].loss == 3.1
    failed = knowledge_of([line(state="failed", score=None, curve=None, signals=None)])
    assert failed.tasks[0].tried[0].outcomes[0].loss is None


def test_several_know_together_what_each_knows_once() -> None:
    whole = knowledge_of(both())
    halves = [knowledge_of([one for one in both() if one["seed"] == seed]) for seed in (0, 1)]
    together = merged(*halves)
    assert together.probes == whole.probes == 4
    assert merged(whole, whole, *halves).probes == 4
    assert {one.recipe for one in together.tasks[0].tried} == {AS_IS, HE}
    bare = knowledge_of(both(recipe_features={}, features={}))
    assert merged(bare, whole).tasks[0].features == {"net_depth": 3.0}
    assert merged(bare, whole).tasks[0].tried[1].features == {"init_gain": 0.25}


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    found = dataclasses.replace(knowledge_of(both()), made={"hours": 1.5})
    path = tmp_path / "known.jsonl.xz"
    write_knowledge(path, found)
    assert read_knowledge(path) == found
    assert knowledge_hash(path) == found.hash
    assert list(tmp_path.iterdir()) == [path]


def test_hash_is_of_what_is_known() -> None:
    found = knowledge_of(both())
    assert found.hash == knowledge_of(both(seconds=0.1)).hash
    assert dataclasses.replace(found, made={"by": "somebody"}).hash == found.hash
    assert found.hash != knowledge_of(both()[:-1]).hash


def rewritten(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    rows = lzma.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(lzma.compress("\n".join(change(rows)).encode()))


DAMAGES: list[tuple[Callable[[list[str]], list[str]], str]] = [
    (lambda rows: rows[:1], "is not what was written"),
    (lambda rows: [rows[0], rows[1][:-9]], "line 2: not JSON"),
    (lambda rows: [rows[0], "3"], "line 2: a JSON int"),
    (lambda rows: [rows[0], "{}"], "line 2: .* it was changed"),
    (lambda rows: ["{}", *rows[1:]], "no knowledge file"),
    (lambda rows: [rows[0].replace('"schema": 1', '"schema": 7'), *rows[1:]], "has schema 7"),
    (lambda rows: [rows[0], rows[1].replace("-0.4", "-0.9", 1)], "is not what was written"),
    (lambda rows: [""], "not JSON"),
]


@pytest.mark.parametrize(("change", "told"), DAMAGES)
def test_a_damaged_or_foreign_file_is_refused_with_its_line(
    tmp_path: Path, change: Callable[[list[str]], list[str]], told: str
) -> None:
    path = tmp_path / "known.jsonl.xz"
    write_knowledge(path, knowledge_of(both()))
    rewritten(path, change)
    with pytest.raises(KnowledgeError, match=told):
        read_knowledge(path)


def test_what_is_no_knowledge_file_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl.xz"
    with pytest.raises(KnowledgeError, match="cannot be read"):
        read_knowledge(path)
    path.write_text("plain text")
    with pytest.raises(KnowledgeError, match="cannot be read"):
        read_knowledge(path)
    with pytest.raises(KnowledgeError, match="cannot be written"):
        write_knowledge(tmp_path / "nowhere" / "known.jsonl.xz", knowledge_of(both()))


def test_records_and_knowledge_are_gathered_and_what_is_skipped_is_told(tmp_path: Path) -> None:
    first, second = tmp_path / "known.jsonl.xz", tmp_path / "records.jsonl"
    write_knowledge(first, knowledge_of(both()[:2]))
    write_lines(second, both())
    with second.open("a") as file:
        file.write('{"schema": 2, "torn')
    found, skipped = gathered(first, second)
    assert found.probes == 4
    assert len(skipped) == 1
    assert "line 5" in skipped[0]


def test_shipped_knowledge_is_whole_and_says_how_it_was_made() -> None:
    found: Knowledge = shipped()
    assert found.made["tasks"] == len(found.tasks)
    assert found.made["probes"] == found.probes
    assert {"families", "datasets", "training_hours", "machine", "torch"} <= found.made.keys()
    for task in found.tasks:
        assert task.tried[0].recipe == AS_IS
        small = task.tried[0].outcomes[0].steps == 200  # the others are real architectures
        assert len(task.tried) >= (40 if small else 24)
        assert {one.seed for one in task.tried[0].outcomes} == ({0, 1, 2} if small else {0, 1})
        assert all(one.features for one in task.tried)
        assert task.features
