"""Heads of an attention in two networks: how many of queries, of keys and values, and how large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..graph import Graph, Layer
from .mapping import Axis, Factor, Segment

Widths = Callable[[Layer, int], tuple[int, int]]
"""Returns the length of an axis of a layer in the source and in the model."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention, in two networks.

    Attributes:
        kv: heads of keys and values.
        group: heads of queries for each of them.
        size: of a head of queries and keys.
        fused: "" for weights of their own, "blocks" for one weight of queries, keys and values one after the other,
            "turns" for one in which each head has its own three beside each other.
        known: the source's heads were read from it, and not inferred from a head's size.
    """

    kv: Factor
    group: Factor
    size: Factor
    fused: str = ""
    known: bool = True

    def queries(self, kind: str = "out", size: Factor | None = None) -> Axis:
        """Returns the axis of queries, or of what heads say ("in"), each head of which has another `size` perhaps."""
        whole = kind == "in"
        segment = Segment((*self.heads().factors, size or self.size), contracted=not whole)
        return Axis((segment,), "in" if whole else "out")

    @property
    def regroups(self) -> bool:
        """Whether fewer queries share a head of keys than in the source, so that only neighbours take its copies."""
        return self.group.after < self.group.before

    def heads(self) -> Segment:
        """Returns the heads of queries, by those of the keys that they share."""
        if not self.regroups:
            return Segment((self.kv, self.group))
        return Segment((Factor(self.kv.before * self.group.before, self.kv.after * self.group.after, "heads"),))

    def keys(self, size: Factor | None = None) -> Axis:
        """Returns the axis of keys, or of values, each head of which has another `size` perhaps."""
        return Axis((Segment((self.kv, size or self.size)),))

    def all_three(self) -> Axis:
        """Returns the axis of a fused weight."""
        if self.fused == "turns":
            return Axis((Segment((*self.heads().factors, Factor(3, 3, "turns"), self.size)),))
        return Axis((*self.queries().segments, *self.keys().segments, *self.keys().segments))

    def outputs(self, role: str, widths: tuple[int, int]) -> Axis | None:
        """Returns the axis of a weight's outputs by its role; None where its lengths are no multiples of the heads."""
        if role == "qkv":
            axis = self.all_three()
        elif role == "query":
            axis = self.queries()
        else:
            size = Factor(widths[0] // self.kv.before, widths[1] // self.kv.after, "head size")
            axis = self.keys(size if role == "value" else None)
        return axis if (axis.before, axis.after) == widths else None


def attentions(graph: Graph, source: Graph | None, twin: Mapping[str, str], widths: Widths) -> dict[str, Attention]:
    """Returns the attentions of a model by the name that its layers have in common; what cannot be read is left out.

    Where the source is no module, nobody says how many heads it has: heads of the model's size are assumed where its
    width is a multiple of that, and as many heads as the model has elsewhere.

    Args:
        graph: of the model.
        source: of the source, where it is a module.
        twin: names of the model → those of the source.
        widths: the lengths of an axis.
    """
    members: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        if layer.attention and layer.heads and layer.name in twin:
            members.setdefault(layer.attention, []).append(layer)
    found = {name: _attention(layers, source, twin, widths) for name, layers in members.items()}
    return {name: one for name, one in found.items() if one is not None}


def _attention(
    layers: Iterable[Layer], source: Graph | None, twin: Mapping[str, str], widths: Widths
) -> Attention | None:
    of = {layer.role: layer for layer in layers}
    query, key, fused, out = of.get("query"), of.get("key"), of.get("qkv"), of.get("attention_out")
    first = query or out
    if first is None:
        return None
    before, after = widths(first, (first.out_axes if query else first.in_axes)[0])
    heads = max(layer.heads for layer in of.values())
    if after % heads:
        return None
    size = after // heads
    told = _heads(source, twin, [layer for layer in of.values() if layer.heads == heads])
    were = told or (before // size if before % size == 0 else heads)
    if before % were:
        return None
    queries, head = Factor(were, heads, "heads"), Factor(before // were, size, "head size")
    kv, kind = queries, ""
    if fused is not None:
        lengths = widths(fused, fused.out_axes[0])
        kind = "turns" if fused.slices == 1 and lengths[1] == 3 * after else "blocks"
        kv = Factor((lengths[0] // head.before - were) // 2, (lengths[1] // size - heads) // 2, "heads")
    elif key is not None:
        lengths = widths(key, key.out_axes[0])
        kv = Factor(lengths[0] // head.before, lengths[1] // size, "heads")
    if not kv.before or not kv.after or were % kv.before or heads % kv.after:
        return None
    group = Factor(were // kv.before, heads // kv.after, "queries of a head")
    return Attention(kv, group, head, kind, bool(told) or before == after)


def _heads(source: Graph | None, twin: Mapping[str, str], layers: Iterable[Layer]) -> int:
    """Returns how many heads the source's graph says; 0 where there is none, or it says nothing."""
    if source is None:
        return 0
    return max((source[twin[layer.name]].heads for layer in layers if twin[layer.name] in source), default=0)
