"""The catalogue: every whole-network recipe that has a name, what it is for, and what it needs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import RecipeError, did_you_mean
from ..graph import Graph
from .about import About
from .adapters import ADAPTER_ROWS, Adapter
from .calibrations import CALIBRATION_ROWS, Calibration
from .growths import GROWTH_ROWS, Growth
from .inherited import CLOSED_HEADS, NEW_ROWS, RENEWALS
from .needs import NEEDS, check_needs
from .ready_starts import not_at_hand
from .recipe import Recipe
from .schemes import SCHEMES, Scheme, scheme, spelled, which_of

if TYPE_CHECKING:
    import pandas as pd

EntryKind = Literal["scheme", "recipe", "calibration", "inheritance"]
"""scheme: a formula for each weight; recipe: rules by role and depth; calibration: measured on batches; inheritance:
beside trained weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the catalogue.

    Attributes:
        name: what `apply_` and `select` take.
        kind: how it works.
        recipe: what the name stands for.
        about: its formula, its source, what it is for, and what it needs.
    """

    name: str
    kind: EntryKind
    recipe: Recipe
    about: About


def _scheme_entry(row: Scheme) -> Entry:
    recipe = Recipe(base=row.name, residual_out="zero" if row.name == "hadamard" else "same")
    return Entry(name=row.name, kind="scheme", recipe=recipe, about=row.about)


def _calibration_entry(row: Calibration) -> Entry:
    recipe = Recipe(base=row.base, calibration=row.name)
    return Entry(name=row.name, kind="calibration", recipe=recipe, about=row.about)


def growth_name(name: str) -> str:
    """Returns the name of the entry of a row of `GROWTH_ROWS`."""
    return name if GROWTH_ROWS[name].narrower else f"grow_{name}"


def _growth_entry(row: Growth) -> Entry:
    return Entry(name=growth_name(row.name), kind="inheritance", recipe=Recipe(growth=row.name), about=row.about)


def adapter_name(name: str) -> str:
    """Returns the name of the entry of a row of `ADAPTER_ROWS`."""
    return name if name in ALONE else f"lora_{name}"


def _adapter_entry(row: Adapter) -> Entry:
    return Entry(name=adapter_name(row.name), kind="inheritance", recipe=Recipe(adapter=row.name), about=row.about)


def _inherited_entries() -> Iterator[Entry]:
    """Yields the entries of new rows, heads and renewals."""
    recipes = {name: Recipe(rows=name) for name in NEW_ROWS}
    recipes |= {name: Recipe(head=name) for name in CLOSED_HEADS}  # type: ignore[arg-type]
    recipes |= {name: Recipe(base="he_normal", renewal=name) for name in RENEWALS}
    for row in (NEW_ROWS | CLOSED_HEADS | RENEWALS).values():
        yield Entry(name=row.name, kind="inheritance", recipe=recipes[row.value], about=row.about)


ALONE = frozenset({"pissa", "olora", "eva", "lora_ga", "corda"})
"""Starts of adapters that people know by that name; of the others it says nothing without "lora"."""

_RECIPES = (
    Entry(
        name="gpt2",
        kind="recipe",
        recipe=Recipe(base="normal", residual_out="scaled"),
        about=About(
            title="GPT-2",
            purpose="pre-LN Transformers",
            formula="std = 0.02; the last weight of each residual branch × 1/√L, L residual adds",
            source="Radford et al. 2019",
            prefer="language models of the GPT family",
            needs=("residuals",),
        ),
    ),
    Entry(
        name="zero_residual",
        kind="recipe",
        recipe=Recipe(residual_out="zero"),
        about=About(
            title="Zero residual (ReZero, SkipInit)",
            purpose="deep residual networks and Transformers",
            formula="every residual branch starts at zero: its multiplier where it has one, else its last weight",
            source="Bachlechner et al. 2020, arXiv:2003.04887; De & Smith 2020, arXiv:2002.10444; "
            "Goyal et al. 2017, arXiv:1706.02677",
            prefer="the smallest change that lets a deep residual network train: all other weights stay",
            left_out="the multiplier that ReZero and SkipInit add to each branch; where a normalization ends the "
            "branch, it is the last weight that starts at zero and not the normalization's scale (Goyal et al.)",
            needs=("residuals",),
        ),
    ),
    Entry(
        name="fixup",
        kind="recipe",
        recipe=Recipe(base="he_normal", residual_out="zero", depth_rule="fixup", head="zero"),
        about=About(
            title="Fixup",
            purpose="residual networks without normalization",
            formula="He × L^(−1/(2m−2)) inside a branch of m weights, its last weight 0, head 0 (L branches)",
            source="Zhang et al. 2019, arXiv:1901.09321",
            prefer="residual CNNs and MLPs whose normalization was taken out",
            left_out="the scalar multiplier of each branch and the scalar biases before each layer",
            needs=("residuals",),
        ),
    ),
    Entry(
        name="t_fixup",
        kind="recipe",
        recipe=Recipe(base="xavier_uniform", embedding="inverse_sqrt", depth_rule="t_fixup"),
        about=About(
            title="T-Fixup",
            purpose="Transformers without normalization and without warm-up",
            formula="Xavier; embeddings std 1/√d × (9N)^(−1/4); values, attention outputs and feed-forward × "
            "0.67·N^(−1/4) in an encoder of N layers, × (9N)^(−1/4) in a decoder with cross-attention",
            source="Huang et al. 2020, ICML",
            prefer="Transformers that are to be trained without learning-rate warm-up",
            left_out="taking out layer normalization and warm-up",
            needs=("transformer",),
        ),
    ),
    Entry(
        name="deepnorm",
        kind="recipe",
        recipe=Recipe(base="xavier_normal", depth_rule="deepnorm"),
        about=About(
            title="DeepNorm",
            purpose="deep post-LN Transformers",
            formula="values, attention outputs and feed-forward: Xavier × β; residual branches × 1/α, "
            "α = (2N)^(1/4), β = (8N)^(−1/4) for N layers",
            source="Wang et al. 2022, arXiv:2203.00555",
            prefer="post-LN Transformers of tens of layers",
            left_out="α itself, where no normalization follows the residual add; where one does it folds into the "
            "weights exactly: LN(α·x + f) = LN(x + f/α)",
            needs=("transformer",),
        ),
    ),
    _calibration_entry(CALIBRATION_ROWS["admin"]),  # beside DeepNorm, which is for the same networks
    Entry(
        name="mup",
        kind="recipe",
        recipe=Recipe(base="he_normal", widths="mup"),
        about=About(
            title="μP",
            purpose="networks whose learning rate is tuned at a small width and carried over to a large one",
            formula="head: std × 1/√r, r = width/base width; learning rates × 1/r by role (plan.param_groups(model, "
            "lr))",
            source="Yang et al. 2022, arXiv:2203.03466",
            prefer="width sweeps, and models too large to tune",
            left_out="attention logits divided by the head's size in the place of its root: it changes nothing as long "
            "as heads are added and not widened",
        ),
    ),
    Entry(
        name="mimetic",
        kind="recipe",
        recipe=Recipe(attention="mimetic"),
        about=About(
            title="Mimetic attention",
            purpose="small Transformers on small data, vision most of all",
            formula="per head W_qᵀW_k ≈ 0.7·Z + 0.7·1, W_out·W_v ≈ 0.4·Z − 0.4·1, Z from N(0, 1/d)",
            source="Trockman & Kolter 2023, arXiv:2305.09828",
            prefer="vision Transformers trained from scratch on little data",
            cost="two singular value decompositions for each attention, O(d³)",
            left_out="sinusoidal position embeddings",
            needs=("attention",),
        ),
    ),
    Entry(
        name="irnn",
        kind="recipe",
        recipe=Recipe(base="normal", log2_gain=round(math.log2(0.001 / 0.02), 3), recurrent="identity"),
        about=About(
            title="IRNN",
            purpose="recurrent networks of ReLU units",
            formula="recurrent matrix = identity, biases 0, other weights std 0.001",
            source="Le et al. 2015, arXiv:1504.00941",
            prefer="nn.RNN with ReLU on long sequences",
            needs=("relu_rnn",),
        ),
    ),
    Entry(
        name="chrono",
        kind="recipe",
        recipe=Recipe(recurrent="chrono"),
        about=About(
            title="Chrono",
            purpose="LSTM and GRU on long sequences",
            formula="b_forget = log U(1, T−1), b_input = −b_forget, T time steps",
            source="Tallec & Ollivier 2018, arXiv:1804.11188",
            prefer="gated cells that have to remember over most of the sequence",
            needs=("gates",),
        ),
    ),
    Entry(
        name="dcgan",
        kind="recipe",
        recipe=Recipe(base="normal", norms="around_one"),
        about=About(
            title="DCGAN",
            purpose="generators and discriminators of convolutions with batch normalization",
            formula="every weight N(0, 0.02²), transposed convolutions too; scales of normalizations N(1, 0.02²), "
            "biases 0",
            source="Radford et al. 2015, arXiv:1511.06434; the scales by the authors' code",
            prefer="convolutional GANs, pix2pix and CycleGAN",
            left_out="linear units before the tanh and the discriminator's leaky slope of 0.2: the architecture",
            needs=("norms",),
        ),
    ),
    Entry(
        name="adaln_zero",
        kind="recipe",
        recipe=Recipe(base="xavier_uniform", head="zero", embedding="small", modulation="zero"),
        about=About(
            title="adaLN-Zero (DiT)",
            purpose="diffusion Transformers, and other networks that a condition shifts, scales and gates",
            formula="Xavier, biases 0; weights that modulate 0, head 0; embeddings of times and classes N(0, 0.02²)",
            source="Peebles & Xie 2023, arXiv:2212.09748",
            prefer="networks conditioned through their normalizations: every gated block starts as the identity",
            left_out="sine and cosine positions; the fans of a patch embedding, which count its patch on both sides "
            "here",
            needs=("modulation",),
        ),
    ),
    Entry(
        name="label_prior",
        kind="recipe",
        recipe=Recipe(head_bias="label_prior"),
        about=About(
            title="Label prior",
            purpose="classifiers, unbalanced ones most of all",
            formula="output bias = log frequency of each class; log(p/(1 − p)) of each label by itself",
            source="Lin et al. 2017, arXiv:1708.02002 (for labels); Karpathy 2019",
            prefer="unbalanced labels: training starts at their entropy and not above it",
            needs=("classes",),
        ),
    ),
)

ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *map(_scheme_entry, SCHEMES.values()),
        *_RECIPES,
        *map(_calibration_entry, CALIBRATION_ROWS.values()),  # Admin for the second time: it keeps its first place
        *map(_adapter_entry, ADAPTER_ROWS.values()),
        *map(_growth_entry, GROWTH_ROWS.values()),
        *_inherited_entries(),
    )
}
"""Every whole-network recipe that has a name."""

NAMED: dict[str, Recipe] = {name: entry.recipe for name, entry in ENTRIES.items()}

_BY_RECIPE = {entry.recipe: entry for entry in reversed(ENTRIES.values())}
"""The first entry of each recipe."""

ALIASES = {
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "trunc_normal": "truncated_normal",
    "truncated_normal_002": "truncated_normal",
    "dirac": "identity",
    "butterfly": "butterfly_orthogonal",
    "rezero": "zero_residual",
    "skipinit": "zero_residual",
    "gradient_agreement": "nio",
}
"""Other names that people know them by."""


def entry_name(name: str) -> str:
    """Returns the name of the entry that `name` means, whatever its case; as it was given where there is none."""
    given = spelled(name)
    found = ALIASES.get(given, given)
    return found if found in ENTRIES else name


def named(name: str) -> Recipe:
    """Returns the whole-network recipe called `name`; PyTorch's and Keras's names are understood.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    try:
        return NAMED[entry_name(name)]
    except KeyError:
        hint = which_of(name) + did_you_mean(spelled(name), [*NAMED, *ALIASES], "autoinit.catalogue()")
        raise RecipeError(f"No recipe is called {name!r}. {hint}") from None


def as_recipe(what: object) -> Recipe:
    """Returns a recipe from its name or from itself.

    Raises:
        RecipeError: an unknown name, or something that is neither.
    """
    if isinstance(what, Recipe):
        return what
    if isinstance(what, str):
        return named(what)
    raise RecipeError(
        f'A recipe is a name such as "he_normal", or a Recipe. Got {type(what).__name__}. '
        "(apply_ also takes a Plan, a Selection, or the path of a saved plan.)"
    )


def entry_of(recipe: Recipe) -> Entry | None:
    """Returns the entry that a recipe is, whether it was named or spelled out; None where it has no name."""
    return _BY_RECIPE.get(recipe)


def check_fits(recipe: Recipe, graph: Graph) -> None:
    """Raises RecipeError where a recipe is for other architectures than this one, and says why and what to use.

    Args:
        recipe: as a whole, where it has a name; its schemes and its calibration in any case.
        graph: the architecture.
    """
    if recipe.start != "none" and recipe.start not in graph.starts:
        raise not_at_hand(recipe.start)
    entry = entry_of(recipe)
    if entry is not None:
        check_needs(entry.name, entry.about.needs, graph)
    for name in dict.fromkeys([recipe.base, *(name for _, name in recipe.rules)]):
        check_needs(name, scheme(name).about.needs, graph)
    if recipe.calibration != "none":
        check_needs(recipe.calibration, CALIBRATION_ROWS[recipe.calibration].about.needs, graph)
    if recipe.growth != "none":
        check_needs(growth_name(recipe.growth), GROWTH_ROWS[recipe.growth].about.needs, graph)
    if recipe.rows != "same":
        check_needs(NEW_ROWS[recipe.rows].name, NEW_ROWS[recipe.rows].about.needs, graph)
    if recipe.head in CLOSED_HEADS:
        check_needs(recipe.head, CLOSED_HEADS[recipe.head].about.needs, graph)
    if recipe.adapter != "same":
        check_needs(adapter_name(recipe.adapter), ADAPTER_ROWS[recipe.adapter].about.needs, graph)


def catalogue() -> pd.DataFrame:
    """Returns every initialization that has a name, one a row.

    These are the names that `apply_`, `select` and `recommend` take as recipes: formulas for each weight (He, Xavier,
    orthogonal), recipes by role and depth (Fixup, μP, GPT-2's), calibrations that measure on batches (LSUV, GradInit),
    and starts of what is new beside trained weights (PiSSA). Look up here what a method is for, what it asks of the
    architecture, and what it costs. Nothing is run, and no torch is loaded.

    Names that PyTorch and Keras have for the same thing, such as kaiming_normal and glorot_uniform, are understood too.
    `autoinit catalogue NAME` prints one row on the command line.

    Returns:
        A pandas.DataFrame with the columns name, kind (scheme, recipe, calibration or inheritance), recipe (its fields
        as one text), title, purpose, formula, source (author, year, arXiv number), prefer (when to take it rather than
        another), cost, left_out (the part of the paper that is no weight, and so is not done) and needs (what the
        architecture must have, in words; empty for nothing).

    Example:
        >>> import autoinit
        >>> table = autoinit.catalogue().set_index("name")
        >>> table.loc["lsuv", "source"]
        'Mishkin & Matas 2016, arXiv:1511.06422'
        >>> table.loc["fixup", "needs"]
        'residual branches'
        >>> sorted(set(table["kind"]))
        ['calibration', 'inheritance', 'recipe', 'scheme']
    """
    from .listing import Listing  # pandas takes a while to load

    rows = [
        {"name": entry.name, "kind": entry.kind, "recipe": entry.recipe.key}
        | dataclasses.asdict(entry.about)
        | {"needs": ", ".join(NEEDS[name].text for name in entry.about.needs)}
        for entry in ENTRIES.values()
    ]
    return Listing(rows)
