import re

import pandas as pd

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
