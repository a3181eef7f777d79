"""What new rows of tables, heads in closed form and stale weights get: on paper, before their values are worked out."""

from __future__ import annotations

from ..graph import TRAINED, Graph, Layer
from ..recipes.inherited import CLOSED_HEADS, NEW_ROWS, RENEWALS
from ..recipes.ready_starts import START_ROWS, start_kind
from ..recipes.recipe import Recipe
from .fill import Fill, kept, make

OUT_OF_REACH = ("frozen", "your optimizer", "excluded by name", "not among the names", TRAINED)
"""How the reasons begin for which a parameter stays under any start."""


def new_rows(layer: Layer, recipe: Recipe) -> Fill:
    """Returns what a table or its head gets whose first rows are trained.

    Args:
        layer: with `Layer.new_rows`.
        recipe: its field `rows` says what the others get.
    """
    count = layer.shape[0] - layer.new_rows
    reason = f"trained, its first {layer.new_rows:,} rows; the last {count:,}: {NEW_ROWS[recipe.rows].about.title}"
    return make(layer, "given", reason)


def is_closed(layer: Layer, recipe: Recipe, graph: Graph) -> bool:
    """Whether a parameter is of a head, weight or bias, that is worked out from the features of its body."""
    if recipe.head not in CLOSED_HEADS or layer.keep or recipe.growth != "none":
        return False
    owner = graph.get(layer.of or "") if layer.role == "bias" else layer
    return owner is not None and owner.role == "output" and not owner.keep


def closed_head(layer: Layer, recipe: Recipe) -> Fill:
    """Returns what such a parameter gets."""
    return make(layer, "given", f"from the features and labels of the data ({CLOSED_HEADS[recipe.head].about.title})")


def renewed(fill: Fill, layer: Layer, recipe: Recipe) -> Fill:
    """Returns what a stale parameter gets.

    Args:
        fill: what a fresh start would give it; what that keeps stays.
        layer: the parameter.
        recipe: its field `renewal` says how both are mixed.
    """
    if fill.untouched or fill.copy_of:
        return fill
    return make(layer, "given", f"trained, and in part anew ({RENEWALS[recipe.renewal].about.title}): {fill.reason}")


def stays(layer: Layer) -> bool:
    """Whether a parameter stays under a start that has a value for each: what does not train, or was excluded."""
    return layer.keep.startswith(OUT_OF_REACH)


def started(layer: Layer, recipe: Recipe) -> Fill:
    """Returns what a parameter gets from a learned start or a ticket, which `Recipe.start` names."""
    if stays(layer) or not layer.size:
        return kept(layer, layer.keep or "it has no entries")
    return make(layer, "given", f"from the {START_ROWS[start_kind(recipe.start)].about.title} {recipe.start}")
