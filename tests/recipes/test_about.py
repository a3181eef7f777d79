from __future__ import annotations

import dataclasses

import pytest

from autoinit.recipes.about import About
from autoinit.recipes.catalogue import ENTRIES
from autoinit.recipes.needs import NEEDS

ALL = {name: entry.about for name, entry in ENTRIES.items()}
MAY_BE_EMPTY = {"left_out", "needs"}


@pytest.mark.parametrize("about", ALL.values(), ids=list(ALL))
def test_everything_is_said_of_a_method(about: About) -> None:
    told = dataclasses.asdict(about)
    assert [name for name in told if not told[name] and name not in MAY_BE_EMPTY] == []
    assert [name for name in about.needs if name not in NEEDS] == []


def test_each_method_has_a_formula_of_its_own() -> None:
    formulas = [about.formula for about in ALL.values()]
    assert len(set(formulas)) == len(formulas)
