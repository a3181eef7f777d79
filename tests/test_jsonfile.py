from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from autoinit import jsonfile
from autoinit.errors import PlanFileError


@dataclass(frozen=True)
class Inner:
    size: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    factor: float = 1.0


def test_round_trip_keeps_every_bit() -> None:
    value = Outer("w", Inner((3, 4)), 0.1 + 0.2)
    assert jsonfile.from_data(Outer, jsonfile.to_data(value), PlanFileError, "it") == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "w"}, "inner: Field required"),
        ({"name": "w", "inner": {"size": ["x"]}}, "inner.size.0"),
        (["w"], "Outer"),
    ],
)
def test_bad_data_names_the_place(data: object, said: str) -> None:
    with pytest.raises(PlanFileError, match=said):
        jsonfile.from_data(Outer, data, PlanFileError, "it")


def test_damaged_text_names_line_and_column() -> None:
    with pytest.raises(PlanFileError, match="line 2, column 1"):
        jsonfile.parse('{"a": 1,\n', PlanFileError, "it")


def test_a_list_is_no_object() -> None:
    with pytest.raises(PlanFileError, match="JSON list"):
        jsonfile.parse("[1]", PlanFileError, "it")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    jsonfile.write(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        jsonfile.write(path, {"a": float("nan")})
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_what_is_not_finite_becomes_null() -> None:
    assert jsonfile.finite({"a": (1.0, float("nan")), "b": [float("inf")]}) == {"a": [1.0, None], "b": [None]}


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    jsonfile.write(tmp_path / "ours.json", {})
    (tmp_path / "other").write_text("")
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_fields_that_came_later_are_left_out_where_they_say_what_was_true_before() -> None:
    added = {"new": False, "size": 1.0}
    assert jsonfile.as_before({"old": 1, "new": False, "size": 1.0}, added) == {"old": 1}
    assert jsonfile.as_before({"old": 1, "new": True, "size": 2.0}, added) == {"old": 1, "new": True, "size": 2.0}
