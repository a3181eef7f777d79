from __future__ import annotations

import pytest

from autoinit import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0883883, "0.0884"), (1.234e-7, "1.23e-07"), (None, "-"), (float("nan"), "nan"), (float("inf"), "inf")],
)
def test_numbers_keep_three_digits(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(512, "512"), (105_000, "105 k"), (1_200_000, "1.2 M"), (6_738_415_616, "6.74 B")]
)
def test_counts(value: int, shown: str) -> None:
    assert text.count(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0042, "4.2 ms"), (0.84, "0.8 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(value: float, shown: str) -> None:
    assert text.seconds(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.031, "3.1 %"), (0.0001, "<0.1 %"), (1.0, "100 %"), (0.998, "100 %")])
def test_shares(value: float, shown: str) -> None:
    assert text.percent(value) == shown


def test_a_table_is_aligned() -> None:
    drawn = text.table(("name", "n"), [("a", "10"), ("long", "2")], "<>")
    assert drawn.splitlines() == ["name   n", "────  ──", "a     10", "long   2"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises((ValueError, IndexError)):
        text.table(("a", "b"), [("1",)])


def test_few_names_say_how_many_more() -> None:
    assert text.few(["a", "b"]) == "a, b"
    assert text.few(["a", "b", "c", "d"], most=2) == "a, b and 2 more"


def test_a_place_in_all_layers_has_one_name() -> None:
    assert (
        text.numberless("blocks.10.conv1.weight") == text.numberless("blocks.3.conv2.weight") == "blocks.*.conv*.weight"
    )
