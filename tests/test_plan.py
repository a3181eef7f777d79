from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import linear, mlp, transformer

from autoinit.errors import PlanFileError
from autoinit.graph import Graph
from autoinit.plan import Adjustment, Plan
from autoinit.recipe import Recipe
from autoinit.rules import resolve


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan = resolve(Recipe(base="orthogonal", log2_gain=0.1), transformer(), seed=7).adjusted(
        {"head.weight": Adjustment(0.1 + 0.2)}
    )
    plan.save(path, provenance={"why": "a test"})
    assert Plan.load(path) == plan
    assert json.loads(path.read_text())["provenance"] == {"why": "a test"}


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
    ],
)
def test_bad_files(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(PlanFileError, match=said):
        Plan.load(path)


def test_printed_plan_joins_layers_that_are_alike() -> None:
    drawn = str(resolve(Recipe(base="he_normal"), transformer(blocks=12)))
    assert len(drawn.splitlines()) == 13
    assert "block.*.up.weight (12)" in drawn
    assert drawn.splitlines()[-1].startswith("Sets 49 and rescales 0 of 62 parameters")


def test_only_numbers_that_differ_are_starred() -> None:
    layers = [linear(f"h.{i}.dense_h_to_4h.weight", 8, 8) for i in range(3)]
    assert "h.*.dense_h_to_4h.weight (3)" in str(resolve("he_normal", Graph(tuple(layers))))


def test_notes_of_the_reader_are_printed() -> None:
    graph = Graph(mlp().layers, notes=("something was not seen.",))
    assert str(resolve("he_normal", graph)).endswith("Note: something was not seen.")
