"""Names of learned starts and tickets."""

from __future__ import annotations

import pytest

from autoinit.errors import RecipeError
from autoinit.recipes.names import recipe_of, title
from autoinit.recipes.pages import markdown
from autoinit.recipes.ready_starts import START_ROWS, start_kind
from autoinit.recipes.recipe import Recipe


@pytest.mark.parametrize("kind", START_ROWS)
def test_a_name_is_its_kind_and_a_digest(kind: str) -> None:
    recipe = Recipe(start=f"{kind}-3fa2b1c4")
    assert start_kind(recipe.start) == kind
    assert recipe_of(recipe.key) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert title(recipe) == f"{START_ROWS[kind].about.title} 3fa2b1c4"


@pytest.mark.parametrize("wrong", ["learned", "learned-xyz", "grown-3fa2b1c4", "learned-3fa2b1c4 "])
def test_other_names_are_refused(wrong: str) -> None:
    assert not start_kind(wrong)
    with pytest.raises(RecipeError, match="start"):
        Recipe(start=wrong)


def test_the_page_has_a_row_for_each_verb() -> None:
    page = markdown().partition("## Starts that are objects")[2]
    assert all(f"| `{row.verb}`<br>{row.about.title} |" in page for row in START_ROWS.values())
