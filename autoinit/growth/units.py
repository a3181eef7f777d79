"""What the axes of every tensor count, in a model and in the source that it takes after: streams, heads, positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from ..graph import Graph, Layer
from .attention import Attention, attentions
from .mapping import Axis, Factor, Segment, plain
from .norms import Norms
from .stacks import Shape

Widths = tuple[int, int]
"""A length in the source and in the model: what a stream is known by."""


class Units:
    """The axes of every tensor of a model that has a counterpart.

    A stream (what is passed on, added up and normalized) is known by its two lengths: streams of the same lengths are
    mapped in the same way, whichever layers they join. So residual adds, products and tied weights fit by themselves.

    Attributes:
        attention: by the name that the layers of one have in common.
        joined: names of weights that read no single stream: several, put one behind the other.
        clashes: names of layers whose groups ask for another order of a stream's units than other layers' do.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, tuple[Shape, Shape]],
        twin: Mapping[str, str],
        source: Graph | None = None,
        norms: Norms | None = None,
        groups: Mapping[str, int] | None = None,
    ) -> None:
        """Reads them.

        Args:
            graph: of the model.
            shapes: of every tensor that has a counterpart, (in the source, in the model).
            twin: names of the model → those of the source.
            source: of the source, where it is a module.
            norms: the model's normalizations.
            groups: the source's numbers of groups of group normalizations, by the name that their scale has in the
                model; as many as the model has where nothing is told.
        """
        self._graph, self._shapes, self._norms = graph, shapes, norms or Norms()
        self.joined: list[str] = []
        self.clashes: list[str] = []
        self.attention = attentions(graph, source, twin, self._widths)
        self._heads = {(one.before, one.after): one.factors for one in map(Attention.heads, self.attention.values())}
        self._layers = [layer for layer in graph.layers if layer.name in shapes]
        told = {name: (groups or {}).get(name, count) for name, count in self._norms.grouped.items()}
        self._order = self._orders({name: (count, self._norms.grouped[name]) for name, count in told.items()})
        self._producers: dict[int, list[tuple[Widths, str]]] = {}
        for layer in self._layers:
            for axis in layer.out_axes[:1]:
                widths = self._of_one_slice(layer, axis)
                self._producers.setdefault(layer.depth, []).append((widths, layer.kind))
        self._pictured = {
            (layer.depth, self._lengths(layer.name, 0))
            for layer in self._layers
            if layer.role == "norm_scale" and layer.name not in self._norms.flat
        }
        self._known = {widths for found in self._producers.values() for widths, _ in found}

    def axes(self, name: str) -> tuple[Axis, ...]:
        """Returns what the axes of a tensor count."""
        dimensions = range(len(self._shapes[name][1]))
        if name not in self._graph:
            scale = self._scale_of(name)
            return self.axes(scale) if scale else tuple(self._vector(name, axis) for axis in dimensions)
        layer = self._graph[name]
        return tuple(self._axis(layer, axis) for axis in dimensions)

    def counts(self, buffer: str) -> bool:
        """Whether a buffer has one number for each unit of a stream, as a batch normalization's statistics have."""
        before, after = self._shapes[buffer]
        return bool(self._scale_of(buffer)) or (len(before) == 1 and (before[0], after[0]) in self._known)

    def _scale_of(self, buffer: str) -> str:
        """Returns the scale of the normalization whose statistics a buffer holds; empty for another buffer."""
        scale = f"{buffer.rpartition('.')[0]}.weight".removeprefix(".")
        return scale if scale in self._shapes and self._shapes[scale] == self._shapes[buffer] else ""

    def _axis(self, layer: Layer, axis: int) -> Axis:
        if layer.kind == "embedding":
            return self._vector(layer.name, axis) if axis in layer.out_axes else self._rows(layer.name, axis)
        if not layer.is_matrix:
            owner = self._owner(layer)
            norm = self._graph.get(layer.of or "", layer)
            if norm.kind == "norm" and layer.kind == "norm" and len(layer.shape) == 1:
                return self._normalized(norm, self._lengths(layer.name, axis))
            return self._out(owner, layer, axis) if owner is not None else self._vector(layer.name, axis)
        if axis in layer.kernel_axes:
            return plain(*self._lengths(layer.name, axis), "fixed")
        if axis in layer.in_axes:
            return self._in(layer, axis)
        return self._out(layer, layer, axis) if axis in layer.out_axes[:1] else self._vector(layer.name, axis)

    def _owner(self, layer: Layer) -> Layer | None:
        """Returns the weight whose output a bias is added to; None for what stands on a stream."""
        owner = self._graph[layer.of] if layer.of is not None and layer.of in self._graph else None
        if owner is None or not owner.is_matrix or len(layer.shape) != 1 or owner.name not in self._shapes:
            return None
        return owner if layer.shape[0] == owner.shape[owner.out_axes[0]] else None

    def _out(self, layer: Layer, subject: Layer, axis: int) -> Axis:
        """Returns the axis of a layer's outputs, on its weight or its bias (`subject`)."""
        before, after = self._lengths(subject.name, axis)
        if before == after and not layer.attention:
            return plain(before, after)
        attention = self.attention.get(layer.attention)
        if attention is not None and layer.role in ("query", "key", "value", "qkv"):
            return attention.outputs(layer.role, (before, after)) or self._stream((before, after))
        if layer.slices > 1 and before % layer.slices == 0:
            inner = self._stream((before // layer.slices, after // layer.slices)).segments[0].factors
            if layer.interleaved:
                return Axis((Segment((*inner, Factor(layer.slices, layer.slices, "turns"))),))
            return Axis((Segment(inner),) * layer.slices)
        return self._stream((before, after))

    def _in(self, layer: Layer, axis: int) -> Axis:
        widths = before, after = self._lengths(layer.name, axis)
        attention = self.attention.get(layer.attention)
        if layer.role == "attention_out" and attention is not None:
            heads = attention.kv.before * attention.group.before, attention.kv.after * attention.group.after
            if before % heads[0] == 0 and after % heads[1] == 0:
                return attention.queries("in", Factor(before // heads[0], after // heads[1], "head size"))
        if before == after or layer.groups > 1:
            return plain(before, after, "in") if layer.groups == 1 else Axis((Segment(self._inside(layer)),), "in")
        return self._read(layer, widths, "in")

    def _read(self, layer: Layer, widths: Widths, kind: Literal["in", "out"]) -> Axis:
        """Returns the axis of what a layer gets: one stream, the same one in many positions, or several joined."""
        near = self._producers.get(layer.depth - 1, [])
        if any(widths == other for other, _ in near):
            return self._stream(widths, kind)
        if (layer.depth, widths) in self._pictured and layer.kind != "norm":
            return self._stream(widths, kind)  # several streams side by side, and no positions: pooled
        flat = self._flattened(layer, widths, near, kind)
        if flat is None and widths not in self._known:
            others = (one for depth in range(layer.depth - 2, -1, -1) for one in self._producers.get(depth, []))
            flat = self._flattened(layer, widths, others, kind)
        if flat is None:
            flat = self._stream(widths, kind)
            self.joined += [layer.name] * (widths not in self._known)
        return flat

    def _flattened(
        self, layer: Layer, widths: Widths, producers: Iterable[tuple[Widths, str]], kind: Literal["in", "out"]
    ) -> Axis | None:
        """Returns an axis that holds the same stream several times: once for each position, or in each direction.

        A picture has its positions within each channel, a row of vectors each vector whole. What reads several times
        as many channels of pictures reads several streams, which nobody tells apart here.
        """
        for (before, after), producer in producers:
            times = widths[0] // before
            if before != after and times > 1 and (times * before, times * after) == widths:
                picture = producer.startswith("conv")
                joins = picture and layer.kind == "norm" and layer.name not in self._norms.flat
                if joins or layer.kind.startswith("conv"):
                    return None
                stream = self._stream((before, after)).segments[0].factors
                positions = Factor(times, times, "positions")
                return Axis((Segment((*stream, positions) if picture else (positions, *stream)),), kind)
        return None

    def _inside(self, layer: Layer) -> tuple[Factor, ...]:
        """Returns what the in-axis of a grouped convolution counts: the channels of one group."""
        return (Factor(*self._lengths(layer.name, layer.in_axes[0]), f"of {self._groups(layer).after} groups"),)

    def _normalized(self, norm: Layer, widths: Widths) -> Axis:
        """Returns the axis of a normalization's scale or shift."""
        return self._stream(widths) if widths[0] == widths[1] else self._read(norm, widths, "out")

    def _vector(self, name: str, axis: int) -> Axis:
        widths = self._lengths(name, axis)
        if widths not in self._known and widths in self._heads:  # a bias of positions for each head
            return Axis((Segment(self._heads[widths]),))
        return self._stream(widths)

    def _rows(self, name: str, axis: int) -> Axis:
        return plain(*self._lengths(name, axis), "rows")

    def _stream(self, widths: Widths, kind: Literal["in", "out"] = "out") -> Axis:
        order = self._order.get(widths, (Factor(*widths),)) if widths[0] != widths[1] else (Factor(*widths),)
        return Axis((Segment(order),), kind)

    def _lengths(self, name: str, axis: int) -> Widths:
        before, after = self._shapes[name]
        return before[axis], after[axis]

    def _widths(self, layer: Layer, axis: int) -> Widths:
        return self._lengths(layer.name, axis)

    def _of_one_slice(self, layer: Layer, axis: int) -> Widths:
        before, after = self._lengths(layer.name, axis)
        return before // layer.slices, after // layer.slices

    def _groups(self, layer: Layer) -> Factor:
        """Returns the groups of a convolution: as many as its shapes tell, those of one group being of one size."""
        (outs, outs_after), (ins, ins_after) = (
            self._lengths(layer.name, axis) for axis in (layer.out_axes[0], layer.in_axes[0])
        )
        if ins == ins_after and outs != outs_after:
            return Factor(max(1, layer.groups * outs // outs_after), layer.groups, "groups")
        return Factor(layer.groups, layer.groups, "groups")

    def _orders(self, normalized: Mapping[str, Widths]) -> dict[Widths, tuple[Factor, ...]]:
        """Returns the digits of the streams whose units stand in groups, by the streams' lengths."""
        found: dict[Widths, tuple[Factor, ...]] = {}
        for layer in self._layers:
            if layer.kind == "conv" and layer.groups > 1:
                groups = self._groups(layer)
                before, after = self._lengths(layer.name, layer.in_axes[0])
                for widths in (
                    self._lengths(layer.name, layer.out_axes[0]),
                    (groups.before * before, groups.after * after),
                ):
                    self._group(found, layer.name, widths, groups)
            elif layer.name in normalized:
                self._group(found, layer.name, self._lengths(layer.name, 0), Factor(*normalized[layer.name], "groups"))
        return found

    def _group(self, found: dict[Widths, tuple[Factor, ...]], name: str, widths: Widths, groups: Factor) -> None:
        before, after = widths
        if before == after or before % groups.before or after % groups.after:
            return
        old = found.get(widths)
        if old is not None and old[0].before == old[0].after and groups.before == groups.after:
            count = math.lcm(old[0].before, groups.before)  # finer groups keep together what coarser ones do
            groups = Factor(count, count, "groups") if before % count == 0 and after % count == 0 else groups
        elif old is not None and old[0] != groups:
            self.clashes.append(name)
            return
        found[widths] = (
            groups,
            Factor(before // groups.before, after // groups.after, f"of {groups.after} groups"),
        )
