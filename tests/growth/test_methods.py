"""What is told of every method."""

from __future__ import annotations

import re

from autoinit.growth.methods import METHODS
from autoinit.recipes.growths import GROWTH_ROWS

WIDER = ["clone", "net2net", "zero_pad", "identity", "stack"]
NARROWER = ["select_uniform", "select_consecutive", "select_magnitude"]


def test_methods_are_told_of() -> None:
    assert [*METHODS] == WIDER + NARROWER
    assert [name for name, method in METHODS.items() if method.narrower] == NARROWER
    assert [*METHODS] == [*GROWTH_ROWS]
    for row in GROWTH_ROWS.values():
        assert all((row.about.title, row.about.formula, row.keeps, row.about.left_out))
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", row.about.source)
