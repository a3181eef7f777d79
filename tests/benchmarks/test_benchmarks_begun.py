"""The benchmark of what a few steps tell: a row of it, and its table."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")

from benchmarks.probes import begun


def test_a_row_tells_a_net_that_trains_from_one_that_stands_still() -> None:
    trained, still = "relu mlp, 3, as_made, SGD 0.05", "relu mlp, 16, as_made, SGD 0.05"
    assert begun.run_one(trained, 0)["trains"]["16"][0]
    assert begun.run_one(still, 0)["trains"] == {"8": (False, False), "16": (False, False)}


def test_the_table_counts_both_kinds() -> None:
    rows = [
        {"net": "one", "trains": {"8": [True, False], "16": [True, True]}},
        {"net": "two", "trains": {"8": [False, False], "16": [True, True]}},
        {"net": "three", "trains": {"8": [False, False]}},
    ]
    lines = begun.report(rows, {"one": False, "two": True, "three": True}).splitlines()
    assert lines[2:] == ["| 8 | 0 of 2 | 1 of 1 | 0 of 1 |", "| 16 | 1 of 1 | 1 of 1 | 1 of 1 |"]
