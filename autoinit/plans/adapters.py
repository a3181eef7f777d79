"""What low-rank adapters get, and the trained weights beside them."""

from __future__ import annotations

import math

from .. import text
from ..graph import Graph, Layer
from ..recipes.adapters import ADAPTER_ROWS
from ..recipes.recipe import Recipe
from .fill import Fill, constant, kept, make

EMBEDDING_STD = 1.0
"""Of the drawn matrix beside an embedding, in LoRA's code and in peft: that of torch's own embeddings."""


def adapter(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    """Returns what one matrix of a low-rank addition gets.

    Args:
        layer: with `Layer.adapter`.
        recipe: its field `adapter` decides.
        graph: has the weight beside it.
    """
    if recipe.adapter == "same":
        return kept(layer, f"an adapter beside {layer.of}, as its owner drew it")
    row = ADAPTER_ROWS[recipe.adapter]
    if not row.drawn:
        return make(layer, "given", row.down if layer.adapter == "down" else row.up)
    base = graph.get(layer.of or "")
    table = base is not None and base.kind == "embedding"
    if (layer.adapter == "up") != table:
        return constant(layer, (0.0,), row.up if not table else "LoRA beside a table: zero")
    if row.name == "gaussian":
        std = 1 / max(1, layer.shape[1 if layer.adapter == "up" else 0])
        return make(layer, "normal", f"{row.down} = {text.number(std)}", std=std)
    if table:
        return make(layer, "normal", f"LoRA beside a table: std = {EMBEDDING_STD:g}", std=EMBEDDING_STD)
    std = 1 / math.sqrt(3 * max(1, layer.fan_in))
    return make(layer, "uniform", f"{row.down}: std = 1/√(3·{layer.fan_in})", std=std)


def remainder(layer: Layer, recipe: Recipe, graph: Graph) -> Fill | None:
    """Returns what the weight beside an adapter gets where the adapter takes from it; None where it does not.

    Args:
        layer: with `Layer.lends`.
        recipe: its field `adapter` decides.
        graph: has the adapter.
    """
    if recipe.adapter == "same" or not ADAPTER_ROWS[recipe.adapter].takes:
        return None
    pair = {one.adapter: one for one in graph.layers if one.adapter and one.of == layer.name and not one.keep}
    if len(pair) < 2:
        return None
    what = ADAPTER_ROWS[recipe.adapter].about.title
    reason = f"trained; less what its adapter adds at the start, so that both together stay what they were ({what})"
    names = (pair["up"].name, pair["down"].name)
    return make(layer, "remainder", reason, less=names, scale=pair["up"].multiplier)
