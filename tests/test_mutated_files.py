"""Every file that went wrong either loads or is refused by an error of the package, which says what to do."""

from __future__ import annotations

import json
import lzma
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated_json, mutated_toml

import autoinit
from autoinit.knowledge.files import gathered
from autoinit.study.toml_file import read_study

BEFORE = Path(__file__).parent / "before"
SEED = 20260714
COUNT = int(os.environ.get("AUTOINIT_MUTATIONS", "2000"))
"""Mutations of all kinds of files together."""

PLAN = json.loads((BEFORE / "plan.json").read_text())
RECIPES = [entry["data"] for entry in json.loads((BEFORE / "recipes.json").read_text()).values()]
RECORDS = [json.loads(line) for line in (BEFORE / "records.jsonl").read_text().splitlines()]
KNOWLEDGE = [json.loads(row) for row in lzma.decompress((BEFORE / "knowledge.jsonl.xz").read_bytes()).splitlines()]
STUDY = (BEFORE / "before.toml").read_text()


def plan(chance: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "plan.json"
    path.write_text(mutated_json(PLAN, chance))
    return lambda: autoinit.Plan.load(path)


def recipe(chance: random.Random, folder: Path) -> Callable[[], object]:
    text = mutated_json(chance.choice(RECIPES), chance)
    return lambda: autoinit.Recipe.from_json(text)


def records(chance: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "records.jsonl"
    path.write_text("\n".join(mutated_json(line, chance) for line in chance.sample(RECORDS, 2)))
    return lambda: gathered(path)


def knowledge(chance: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "knowledge.jsonl.xz"
    at = chance.randrange(len(KNOWLEDGE))
    rows = [mutated_json(row, chance) if at == place else json.dumps(row) for place, row in enumerate(KNOWLEDGE)]
    content = lzma.compress("\n".join(rows).encode(), preset=0)
    path.write_bytes(content if chance.random() < 0.95 else content[: chance.randrange(len(content))])
    return lambda: gathered(path)


def study(chance: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / "study.toml"
    path.write_text(mutated_toml(STUDY, chance))
    return lambda: read_study(path)


SHARES: dict[Callable[..., Any], float] = {plan: 0.4, recipe: 0.3, records: 0.15, knowledge: 0.05, study: 0.1}


@pytest.mark.parametrize("make", SHARES, ids=lambda make: make.__name__)
def test_a_mutated_file_loads_or_is_refused_with_a_reason(make: Callable[..., Any], tmp_path: Path) -> None:
    loaded = refused = 0
    for number in range(round(COUNT * SHARES[make])):
        read = make(random.Random(f"{SEED} {make.__name__} {number}"), tmp_path)
        try:
            read()
        except autoinit.AutoInitError as error:
            refused += len(str(error)) > 20
        except Exception as error:
            raise AssertionError(f"mutation {number} of a {make.__name__} raised {type(error).__name__}") from error
        else:
            loaded += 1
    assert loaded
    assert refused


def test_the_files_load_as_they_are() -> None:
    assert autoinit.Plan.load(BEFORE / "plan.json").fills
    assert gathered(BEFORE / "records.jsonl")[0].tasks
    assert gathered(BEFORE / "knowledge.jsonl.xz")[0].tasks
    assert read_study(BEFORE / "before.toml").tasks
