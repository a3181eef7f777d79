from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mlp, transformer

from autoinit.errors import PlanFileError
from autoinit.graph import Graph
from autoinit.plans.fill import Adjustment
from autoinit.plans.plan import Plan
from autoinit.plans.rules import resolve
from autoinit.recipes.recipe import Recipe
from autoinit.version import __version__


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = resolve(Recipe(base="orthogonal", log2_gain=0.1), transformer(), seed=7).adjusted(
        {"head.weight": Adjustment(0.1 + 0.2)}
    )
    plan.save(path, provenance={"why": "a test"})
    assert Plan.load(path) == plan
    assert json.loads(path.read_text())["provenance"] == {"autoinit": __version__, "why": "a test"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "damaged: not JSON"),
        ("[]", "JSON list"),
        ("{}", "not an autoinit plan: its format is None"),
        ('{"format": "autoinit-plan", "version": 99}', "version 99; this autoinit reads up to 1. Upgrade"),
        ('{"format": "autoinit-plan", "version": 1, "plan": {}}', "lacks a recipe, a seed or a list of fills"),
        (
            '{"format": "autoinit-plan", "version": 1, "plan": {"recipe": {}, "seed": 0, "fills": [{"name": "w"}]}}',
            "shape: Field required",
        ),
        (
            '{"format": "autoinit-plan", "version": 1, "plan": {"recipe": {}, "seed": 0, "fills": [], "notes": 7}}',
            "Input should be a valid tuple",
        ),
        (
            '{"format": "autoinit-plan", "version": 1, "plan": {"recipe": {}, "seed": 0, "fills": [], "notes": null}}',
            "Input should be a valid tuple",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PlanFileError, match=said):
        Plan.load(path)


def test_notes_of_the_reader_are_printed() -> None:
    graph = Graph(mlp().layers, notes=("something was not seen.",))
    assert str(resolve("he_normal", graph)).endswith("Note: something was not seen.")


def test_a_plan_says_which_version_made_it_and_a_file_of_before_that_it_does_not_know(tmp_path: Path) -> None:
    plan = resolve(Recipe(base="he_normal"), mlp())
    assert plan.made_with == __version__
    plan.save(tmp_path / "plan.json", provenance={"why": "because"})
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["provenance"] == {"autoinit": __version__, "why": "because"}
    written["provenance"]["autoinit"] = "0.0.7"  # it stays the one that made it, whoever saves it again
    (tmp_path / "plan.json").write_text(json.dumps(written))
    assert Plan.load(tmp_path / "plan.json").made_with == "0.0.7"
    Plan.load(tmp_path / "plan.json").save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text())["provenance"] == {"autoinit": "0.0.7"}
    for provenance in ({}, None, [1], {"autoinit": 3}):
        (tmp_path / "old.json").write_text(json.dumps({**written, "provenance": provenance}))
        old = Plan.load(tmp_path / "old.json")
        assert (old.made_with, old) == ("", plan)
