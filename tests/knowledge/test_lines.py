"""Record lines: written once, read whole, damaged ones named."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from autoinit.errors import ArgumentError
from autoinit.judging.score import Curve, Glance, Reference, score
from autoinit.knowledge.lines import curve_data, identity, read_lines, rounded, score_data, signals_data, write_lines


def line(seed: int = 0, recipe: str = "as_is", **changes: Any) -> dict[str, Any]:
    curve = Curve((2.3, 1.23456789), ((2, 1.1),), 0.5, None, 0.1, (1.1,), Glance(2.3, 0.4, 0.2))
    found = {
        "schema": 2,
        "id": "",
        "study": "small",
        "task": "mlp",
        "family": "mlp",
        "dataset": "digits",
        "fingerprint": "75739c3fe13f5b67",
        "features": {"parameters": 3466, "sequence_length": None},
        "recipe": recipe,
        "fields": {},
        "recipe_features": {"init_gain": -0.5},
        "stage": "probe",
        "seed": seed,
        "lr_step": 0,
        "lr": 0.05,
        "steps": 2,
        "curve": curve_data(curve),
        "signals": signals_data(curve),
        "score": score_data(score(curve, Reference(2.3), 2)),
        "state": "complete",
        "reason": "",
        "attempts": 1,
        "spent": 2.5,
        "seconds": 0.1,
        "device": "cpu",
        "threads": 1,
        "autoinit": "0.1.0",
        "torch": "2.13.0",
        "finished": "2026-11-24T02:28:26+00:00",
    } | changes
    return {**found, "id": identity(found)}


def test_identity_is_of_what_was_run_and_not_of_when() -> None:
    assert line()["id"] == line(seconds=9.0, finished="2027-01-01T00:00:00+00:00", study="other")["id"]
    assert len({line()["id"], line(seed=1)["id"], line(recipe="he_normal")["id"], line(steps=3)["id"]}) == 4


def test_lines_of_the_first_schema_are_read_without_the_features_of_their_recipe(tmp_path: Path) -> None:
    old = {name: value for name, value in line().items() if name != "recipe_features"} | {"schema": 1}
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps(old) + "\n")
    read = read_lines(path)
    assert (read.skipped, read.lines) == ([], [line() | {"recipe_features": {}}])


def test_numbers_are_rounded_and_what_is_not_finite_is_null() -> None:
    assert rounded({"a": [1.23456789, math.inf], "b": (math.nan, 3)}) == {"a": [1.23457, None], "b": [None, 3]}


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_lines_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    wanted = [line(seed) for seed in range(3)] + [line(7, lr=None, curve=None, score=None, state="failed")]
    assert write_lines(tmp_path / name, wanted) == 4
    assert read_lines(tmp_path / name).lines == wanted


def test_appending_writes_each_trial_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_lines(path, [line(0), line(1)])
    assert write_lines(path, [line(1), line(2), line(2)]) == 1
    assert [one["seed"] for one in read_lines(path).lines] == [0, 1, 2]


def test_two_exports_merge_without_repeats(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    write_lines(first, [line(0), line(1)])
    write_lines(second, [line(1), line(2)])
    read = read_lines(first, second)
    assert [one["seed"] for one in read.lines] == [0, 1, 2]
    assert read.repeated == 1


def test_torn_last_line_is_named_and_cut_off_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_lines(path, [line(0), line(1)])
    path.write_bytes(path.read_bytes()[:-40])
    read = read_lines(path)
    assert [one["seed"] for one in read.lines] == [0]
    assert len(read.skipped) == 1
    assert "line 2: not JSON" in read.skipped[0]
    write_lines(path, [line(1), line(2)])
    assert [one["seed"] for one in read_lines(path).lines] == [0, 1, 2]
    assert not read_lines(path).skipped


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda one: {**one, "schema": 3}, "schema 3, of a later version"),
        (lambda one: {**one, "seed": "0"}, "field 'seed' is '0'"),
        (lambda one: {name: value for name, value in one.items() if name != "curve"}, "no field 'curve'"),
        (lambda one: {**one, "seed": 5}, "its id does not fit"),
        (lambda one: [one], "a JSON list"),
    ],
)
def test_damaged_line_is_skipped_by_number(tmp_path: Path, damage: Any, told: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in [line(0), damage(line(1)), line(2)]) + "\n")
    read = read_lines(path)
    assert [one["seed"] for one in read.lines] == [0, 2]
    assert f"line 2: {told}" in read.skipped[0]


def test_paths_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_lines(tmp_path / "none.jsonl")
    with pytest.raises(ArgumentError, match="cannot be written"):
        write_lines(tmp_path / "none" / "records.jsonl", [line()])


def test_a_csv_file_has_a_row_a_trial_and_a_column_for_each_part_of_the_score(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    wanted = [line(0), line(1), line(7, lr=None, curve=None, score=None, state="failed", reason='a, "b"\nc')]
    for _ in range(2):  # anew, and not added to
        assert write_lines(path, wanted) == 3
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "1", "7"]
    assert [row["score_total"] for row in rows] == [*(str(one["score"]["total"]) for one in wanted[:2]), ""]
    assert rows[2]["reason"] == 'a, "b"\nc'
    assert json.loads(rows[0]["fields"]) == wanted[0]["fields"]
    with pytest.raises(ArgumentError, match=r"records\.csv is a table for other programs.* Give \.jsonl or \.parquet"):
        read_lines(path)


@pytest.mark.parametrize("name", ["records.xlsx", "records", "records.txt"])
def test_records_are_written_to_files_of_three_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"'{name}'\. Allowed endings: \.jsonl, \.csv, \.parquet\."):
        write_lines(tmp_path / name, [line(0)])
    assert not (tmp_path / name).exists()
