import re

import pandas as pd
import pytest

import autoinit
from autoinit.recipes.catalogue import ENTRIES


def test_a_notebook_shows_the_catalogue_as_a_folded_page() -> None:
    listing = autoinit.catalogue()
    html = listing._repr_html_()
    summaries = re.findall(r"<summary[^>]*>(.*?)</summary>", html)
    assert [int(summary.split("(")[-1][:-1]) for summary in summaries] == list(
        listing["kind"].value_counts(sort=False).to_numpy()
    )
    assert f"{len(ENTRIES)} initializations by name" in html
    assert all(f">{name}<" in html for name in ENTRIES)


def test_what_is_taken_from_it_is_a_plain_frame() -> None:
    listing = autoinit.catalogue()
    for part in (listing[listing["kind"] == "scheme"], listing.head(), listing.set_index("name"), listing.copy()):
        assert type(part) is pd.DataFrame
    assert isinstance(listing, pd.DataFrame)


def test_a_shell_shows_a_line_and_print_the_whole_as_wide_as_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = autoinit.catalogue()
    assert repr(listing).startswith(f"<Listing: {len(ENTRIES)} initializations by name")
    assert "\n" not in repr(listing)
    monkeypatch.setenv("COLUMNS", "80")
    lines = str(listing).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(name) for line in lines) for name in ENTRIES)
