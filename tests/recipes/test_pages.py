from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import autoinit
from autoinit.errors import RecipeError
from autoinit.recipes import pages as docs
from autoinit.recipes.about import PLAIN_COST
from autoinit.recipes.catalogue import ALIASES, ENTRIES, NAMED
from autoinit.recipes.needs import NEEDS
from autoinit.recipes.ready_starts import START_ROWS

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"
HEADER = "| name | for | formula | source | needs | cost | when to prefer it | left out |"


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == docs.markdown(), f"docs/catalogue.md is out of date; run: {docs.COMMAND}"


def rows() -> list[list[str]]:
    """Returns the cells of every entry's row, split at the bars that Markdown would split at."""
    lines = [line for line in docs.markdown().splitlines() if re.match(r"\| `\w+`<br>", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_page_has_one_row_for_each_entry() -> None:
    names = [row[0].split("`")[1] for row in rows()]
    assert sorted(names) == sorted([*NAMED, *(row.verb for row in START_ROWS.values())])
    assert {len(row) for row in rows()} == {HEADER.count("|") - 1}
    assert docs.markdown().count(HEADER) == len(docs.KINDS) + 1  # and starts that are objects


def test_what_markdown_would_read_is_escaped_and_numbers_are_links() -> None:
    assert docs.cell("a|b*c<d>[e]") == r"a\|b\*c\<d>\[e\]"
    assert docs.cell("De & Smith 2020, arXiv:2002.10444;") == (
        "De & Smith 2020, [arXiv:2002.10444](https://arxiv.org/abs/2002.10444);"
    )


def test_every_arxiv_number_is_linked() -> None:
    numbers = re.findall(r"arXiv:(\S+?)[;,)]?(?:\s|$)", " ".join(entry.about.source for entry in ENTRIES.values()))
    assert len(numbers) > 30
    assert {number for number in numbers if f"(https://arxiv.org/abs/{number})" not in docs.markdown()} == set()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_the_terminal_and_loses_no_word(width: int) -> None:
    listing = docs.listing(width)
    assert max(map(len, listing.splitlines())) <= width
    words = re.findall(r"\S+", listing)
    for entry in ENTRIES.values():
        cost = "" if entry.about.cost == PLAIN_COST else entry.about.cost
        for word in f"{entry.name} {entry.about.purpose} {entry.about.prefer} {cost}".split():
            assert word in words


@pytest.mark.parametrize("name", NAMED)
def test_a_card_says_all_there_is(name: str) -> None:
    entry = ENTRIES[name]
    about = entry.about
    card = " ".join(docs.card(entry, 100).split())
    needs = [NEEDS[need].text for need in about.needs]
    for text in (about.title, about.formula, about.source, about.purpose, about.prefer, about.cost, *needs):
        assert " ".join(text.split()) in card
    assert about.left_out in card
    assert ("left out" in card) == bool(about.left_out)
    assert max(map(len, docs.card(entry, 100).splitlines()[:-7])) <= 100


SIZE = 16
NAMESPACE = {
    "torch": torch,
    "autoinit": autoinit,
    "fan_in": SIZE,
    "heads": 4,
    "steps": 20,
}


@pytest.mark.parametrize("name", NAMED)
def test_what_a_card_says_to_write_runs(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(SIZE, SIZE, generator=generator) for key in ("weight", "query", "key", "value", "out")}
    namespace = NAMESPACE | tensors | {"bias": torch.randn(4 * SIZE, generator=generator)}
    lines = docs.usage(ENTRIES[name])
    made = [eval(line, namespace) for line in lines if line.startswith(("autoinit.Recipe", "autoinit.init", "torch."))]
    recipes = [item for item in made if isinstance(item, autoinit.Recipe)]
    assert NAMED[name] == (recipes[0] if recipes else autoinit.Recipe())
    assert all(f'"{name}"' in line for line in lines[:2])
    assert any(line.startswith(docs.FUNCTIONS[name]) for line in lines) if name in docs.FUNCTIONS else True


def test_functions_of_one_tensor_belong_to_entries() -> None:
    called = {call.partition("(")[0] for call in docs.FUNCTIONS.values()}
    offered = {f"autoinit.init.{name}" for name in vars(autoinit.init) if name.endswith("_") and name[0] != "_"}
    general = {"autoinit.init.variance_scaling_", "autoinit.init.fill_"}
    assert set(docs.FUNCTIONS) <= set(NAMED)
    assert offered - general == {name for name in called if name.startswith("autoinit.")}


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_entry_is_found_by_its_other_names(alias: str, name: str) -> None:
    assert docs.find(alias) is ENTRIES[name]
    assert alias in docs.card(ENTRIES[name], 100)


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'fixup'"):
        docs.find("fixpu")
