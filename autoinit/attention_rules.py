"""The rule of mimetic attention: weights that are factors of one matrix, two parameters at a time."""

from __future__ import annotations

from dataclasses import dataclass

from .formulas import Distribution, rows_and_columns
from .graph import Graph, Layer


@dataclass(frozen=True, slots=True)
class Mimetic:
    """How one weight of an attention is drawn.

    Attributes:
        distribution: which factor it is.
        stream: what the random stream is called that both factors of one matrix draw from.
        why: in words.
    """

    distribution: Distribution
    stream: str
    why: str


_QUERY_KEY = "W_qᵀW_k ≈ 0.7·Z + 0.7·1 in each head"
_OUT_VALUE = "W_out·W_v ≈ 0.4·Z − 0.4·1"
_ROWS: dict[str, Mimetic] = {
    "query": Mimetic("mimetic_query", "queries", f"mimetic: {_QUERY_KEY}"),
    "key": Mimetic("mimetic_key", "queries", f"mimetic: {_QUERY_KEY}"),
    "value": Mimetic("mimetic_value", "values", f"mimetic: {_OUT_VALUE}"),
    "attention_out": Mimetic("mimetic_out", "values", f"mimetic: {_OUT_VALUE}"),
    "qkv": Mimetic("mimetic_qkv", "values", f"mimetic: {_QUERY_KEY}, {_OUT_VALUE}"),
}
"""By role. A fused weight draws the values' matrix first, as the output weight that shares its stream does."""


def mimetic(layer: Layer, graph: Graph) -> Mimetic | None:
    """Returns the draw of a weight of self-attention (Trockman & Kolter 2023, arXiv:2305.09828).

    None for what is no self-attention, and where its weights are no factors of square matrices: heads that share keys
    and values, kept weights, inputs of different widths.
    """
    if layer.role not in _ROWS or not layer.attention or layer.cross or layer.heads < 1:
        return None
    group = [other for other in graph.layers if other.attention == layer.attention]
    if any(other.keep or (other.role == "qkv" and other.slices != 3) for other in group):
        return None
    widths = {size for other in group for size in rows_and_columns(other)}
    heads = {other.heads for other in group}
    return _ROWS[layer.role] if len(widths) == len(heads) == 1 else None
