"""Other starts that trained weights give: rows of longer tables, heads in closed form, weights brought back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .about import About


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What is known of one such start.

    Attributes:
        name: of its entry in the catalogue.
        value: what the recipe's field holds.
        about: its formula, its source, what it is for, and what it needs.
    """

    name: str
    value: str
    about: About


_LONGER = "tables of tokens and heads with more rows than the checkpoint's"
_NO_PASS = "one pass over the table"
_ROWS = (
    Inherited(
        name="rows_mean",
        value="mean",
        about=About(
            title="new rows at the mean",
            purpose=_LONGER,
            formula="w_new = mean of the trained rows; biases likewise",
            source="Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models",
            prefer="the first to try: new tokens take next to no probability from the old ones",
            cost=_NO_PASS,
            needs=("rows",),
        ),
    ),
    Inherited(
        name="rows_mean_cov",
        value="mean_cov",
        about=About(
            title="new rows around the mean",
            purpose=_LONGER,
            formula="w_new from N(mean, Σ/100), mean and covariance Σ of the trained rows",
            source="Hewitt 2021; as transformers' resize_token_embeddings, with a wider spread",
            prefer="several new tokens, which are told apart from the first step",
            cost=f"{_NO_PASS}, one more for their covariance",
            needs=("rows",),
        ),
    ),
    Inherited(
        name="rows_small",
        value="small",
        about=About(
            title="small new rows",
            purpose=_LONGER,
            formula="w_new from N(0, 0.01·ms), ms the mean square of the trained rows; biases 0",
            source="a tenth of the usual draw around zero",
            prefer="to compare with",
            cost=_NO_PASS,
            needs=("rows",),
        ),
    ),
    Inherited(
        name="rows_zero",
        value="zero",
        about=About(
            title="new rows at zero",
            purpose=_LONGER,
            formula="w_new = 0; biases 0",
            source="the usual start of a head that adds classes",
            prefer="heads; in a table of tokens all new ones are alike",
            cost=_NO_PASS,
            needs=("rows",),
        ),
    ),
)

_HEADS = (
    Inherited(
        name="class_means",
        value="class_means",
        about=About(
            title="head of class means",
            purpose="a new linear head of a classifier on a trained body",
            formula="w_c = f·Σ⁻¹(μ_c − μ), b_c = −½w_c·(μ_c + μ) + log π_c; μ_c, Σ of the features, Σ shrunk",
            source="Fisher 1936; shrinkage: Friedman 1989; as head_ sets it",
            prefer="a trained body that stays, or trains at a small rate; at larger ones zeros overtake it",
            cost="forward passes over a thousand rows",
            needs=("class_head",),
        ),
    ),
)

_RENEWED = (
    Inherited(
        name="shrink_and_perturb",
        value="shrink_and_perturb",
        about=About(
            title="shrink and perturb",
            purpose="trained weights that have become stale, before a training goes on",
            formula="W' = 0.4·W + 0.4·W_he, W the model's own, W_he a fresh draw (He)",
            source="Ash & Adams 2020, arXiv:1910.08475",
            prefer="where going on learns the new data worse than a fresh start would",
            left_out="other shares than these, which renew_ takes",
        ),
    ),
    Inherited(
        name="redo",
        value="redo",
        about=About(
            title="ReDo",
            purpose="trained weights with dormant units, before a training goes on",
            formula="units of mean |activation| ≤ 0.025 of their layer's: incoming drawn (He), outgoing 0",
            source="Sokar et al. 2023, arXiv:2302.12902",
            prefer="as shrink_and_perturb, where the output is to stay as it is",
            cost="some forward passes",
            left_out="renewal while training goes on, which renew_ does when it is called there",
        ),
    ),
)

NEW_ROWS: dict[str, Inherited] = {row.value: row for row in _ROWS}
"""What the new rows of tables get, by the value of `Recipe.rows`."""
CLOSED_HEADS: dict[str, Inherited] = {row.value: row for row in _HEADS}
"""Heads that are worked out from features, by the value of `Recipe.head`."""
RENEWALS: dict[str, Inherited] = {row.value: row for row in _RENEWED}
"""What stale weights get, by the value of `Recipe.renewal`."""

if TYPE_CHECKING:
    RowsName = str
    RenewalName = str
else:
    # Literals made of the rows: files and their schema are validated against them, and no name is written twice.
    RowsName = Literal["same", *NEW_ROWS]
    RenewalName = Literal["none", *RENEWALS]
