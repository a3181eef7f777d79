from __future__ import annotations

import math

import pytest

from benchmarks.speed.workers import HEADER, Seen, Way, alike, machine, ratio, report, rows_of, table, ways

ALONE, BOTH, ONE, TWO = Way("alone", 0, 1), Way("both threads", 0, 2), Way("one", 1, 1), Way("two", 2, 1)


def seen(records: list[float]) -> dict[Way, Seen]:
    return {
        ALONE: Seen([4.0, 4.0, 4.0], [80.0, 80.0, 80.0], records),
        BOTH: Seen([6.0, 6.0, 6.0], [90.0, 90.0, 90.0], [0.5]),
        ONE: Seen([4.0, 2.0, 5.0], [100.0, 50.0, 100.0], records),
        TWO: Seen([6.0, 4.0, 10.0], [190.0, 95.0, 150.0], records),
    }


def test_the_ways_compared() -> None:
    assert [(way.workers, way.threads) for way in ways(3, 4)] == [(0, 1), (0, 4), (1, 1), (2, 1), (3, 1)]
    assert [(way.workers, way.threads) for way in ways(1, 1)] == [(0, 1), (1, 1)]
    assert len({way.name for way in ways(3, 4)}) == 5


def test_the_ratio_is_paired_by_rounds() -> None:
    assert ratio([6.0, 4.0, 10.0], [4.0, 2.0, 5.0]) == 2.0  # of 1.5, 2 and 2; the ratio of medians is 1.5
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])


def test_only_ways_on_one_thread_have_to_be_alike() -> None:
    found = seen([1.0, math.nan])
    assert alike(found)
    found[TWO].records = [1.0, 2.0]
    assert not alike(found)


def test_rows() -> None:
    rows = rows_of("task", seen([]))
    assert rows[3] == ["task", "two", "6.00", "2.00", "150", "1.90"]
    assert rows[0][2:4] == ["4.00", "1.00"]
    assert rows_of("task", {ALONE: seen([])[ALONE]}) == [["task", "alone", "4.00", "", "80", ""]]
    assert all(len(row) == len(HEADER) for row in rows)
    assert table(rows).count("\n") == len(rows) + 1


def test_report() -> None:
    text = report({"a": seen([1.0])}, "python -m benchmarks.workers --rounds 3")
    assert "    python -m benchmarks.workers --rounds 3\n" in text
    assert "median 2.00, least 2.00 (a); 1.6 is wanted" in text
    assert "gave the same records bit for bit" in text
    assert machine() in text
    other = seen([1.0])
    other[ONE].records = [2.0]
    assert "DIFFERED on b" in report({"a": seen([1.0]), "b": other}, "")
