"""Where one product stands for several: axes of a weight that number products, outputs that are cut in equal parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .axes import Use, contraction, in_output, meeting
from .blocks import DROPOUT, SOFTMAX, Blocks
from .layout import Stretches, dim_of, moved
from .walk import BINARY, NORMS, PARTS, UNARY, VIEWS, Edge, Node, saved

_PASSING = VIEWS | UNARY | BINARY | NORMS | DROPOUT
_LEAST = 2

CutKind = Literal["blocks", "interleaved", "other"]
"""What each part of an output is: a block of neighbours, every n-th unit, or something else."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How the outputs of a product are cut.

    Attributes:
        parts: number of equal parts.
        how: what they are.
    """

    parts: int
    how: CutKind


def axes_apart(blocks: Blocks, use: Use) -> frozenset[int]:
    """Returns the output axes of a weight that number products of their own, as the experts in "bd,edh->beh" do.

    Nothing sums over them together with the units: the next weight has such an axis of its own or is the same for all,
    a gate weighs them, a mean or a softmax runs along one of both, or each is picked.
    """
    out = frozenset(meeting(use).outside)
    if len(out) < _LEAST:
        return frozenset()
    found: set[int] = set()
    stack: list[tuple[Node, Stretches]] = [(use.node, in_output(use))]
    seen = {use.node}
    while stack:
        node, layout = stack.pop()
        for consumer, position in node.consumers:
            alone = _alone(blocks, consumer, position, layout, out)
            if alone < out:
                found |= alone
            if consumer in seen or consumer in blocks.products or consumer in blocks.residuals:
                continue
            if consumer.op in _PASSING and not (alone and consumer.op in PARTS):
                seen.add(consumer)
                stack.append((consumer, moved(consumer, layout, node.shapes[_output(consumer, position)])))
    return frozenset(found) if found < out else frozenset()


def _output(consumer: Node, position: int) -> int:
    edge = consumer.inputs[position]
    return edge.output if edge is not None else 0


def _alone(blocks: Blocks, node: Node, position: int, layout: Stretches, out: frozenset[int]) -> frozenset[int]:
    """Returns which output axes a node treats apart from the others."""
    view = contraction(node, position)
    if view is not None and node in blocks.products:
        return _axes(layout, [at for at in range(len(layout)) if at not in view.inside]) & out
    if view is not None and len(node.data) == 2 and _is_one_row(node, position):
        return _axes(layout, view.inside) & out
    if node.op in ("Sum", "Mean"):
        return _axes(layout, _dims(node, len(layout))) & out
    if node.op in SOFTMAX | {"LogSoftmax"}:
        along = _axes(layout, [dim_of(saved(node.fn, "dim"), len(layout))]) & out
        return out - along if along else frozenset()
    if node.op in PARTS and _dim(node, layout) is not None and (_is_each(node, layout)):
        return _axes(layout, [_dim(node, layout) or 0]) & out
    return frozenset()


def _is_one_row(node: Node, position: int) -> bool:
    """Whether the other factor of a product of two values has one row for each batch: gates that weigh this one."""
    other = next(at for at, edge in enumerate(node.inputs) if at != position and edge is not None)
    view, edge = contraction(node, other), node.inputs[other]
    return view is not None and edge is not None and math.prod(edge.node.shape[axis] for axis in view.outside) == 1


def _dims(node: Node, ndim: int) -> list[int]:
    dims: Any = saved(node.fn, "dim")
    dims = dims if isinstance(dims, (tuple, list)) else [] if dims is None else [dims]
    return [dim_of(dim, ndim) for dim in dims]


def _dim(node: Node, layout: Stretches) -> int | None:
    dim = saved(node.fn, "dim")
    return None if dim is None or not layout else dim_of(dim, len(layout))


def _is_each(node: Node, layout: Stretches) -> bool:
    """Whether a cut picks single entries of an axis."""
    if node.op in ("Select", "Unbind"):
        return True
    dim = _dim(node, layout)
    return dim is not None and all(shape[dim] == 1 for shape in node.shapes)


def _axes(layout: Stretches, at: Any) -> frozenset[int]:
    """Returns the parameter's axes that run along these axes of a value."""
    return frozenset(run.axis for axis in at if axis < len(layout) for run in layout[axis] if run.axis is not None)


def cut_of(blocks: Blocks, use: Use, units: int) -> Cut | None:
    """Returns how the output of a product is cut in equal parts that go ways of their own; None where it is not.

    Parts that are joined again, as the halves of a cross-stage block or of a rotation, are one matrix.

    Args:
        blocks: the structure.
        use: the weight in the product.
        units: the axis of the weight that runs along its output units.
    """
    node, layout = use.node, in_output(use)
    while len(node.consumers) == 1 and _is_before_cut(blocks, node.consumers[0][0], layout, units):
        consumer, position = node.consumers[0]
        layout = moved(consumer, layout, node.shapes[_output(consumer, position)])
        node = consumer
    cuts = [consumer for consumer, _ in node.consumers]
    if cuts and all(cut.op == "Glu" for cut in cuts):
        return Cut(2, "blocks")
    if not cuts or not layout or any(cut.op not in PARTS for cut in cuts):
        return None
    dims = {_dim(cut, layout) for cut in cuts}
    dim = dims.pop()
    if dims or dim is None or len(layout) <= dim or units not in _axes(layout, [dim]):
        return None
    taken = sorted(_taken(cut, output, dim, node.shape[dim]) for cut in cuts for output in range(len(cut.shapes)))
    how = _how(taken, layout, dim, node.shape[dim])
    edges = [Edge(cut, output) for cut in cuts for output in range(len(cut.shapes))]
    return Cut(len(taken), how) if how and not _are_joined(blocks, edges) else None


def _is_before_cut(blocks: Blocks, node: Node, layout: Stretches, units: int) -> bool:
    """Whether a node only moves the outputs of a product, or adds a bias or the outputs of another product.

    What it picks of other axes, as the last token of each row, is no cut of the units.
    """
    if node.op == "Add":
        return node not in blocks.residuals and all(edge.node.shape == node.shape for edge in node.data)
    if node.op in PARTS:
        dim = _dim(node, layout)
        return len(node.shapes) == 1 and dim is not None and units not in _axes(layout, [dim])
    return node.op in VIEWS


def _taken(cut: Node, output: int, dim: int, length: int) -> tuple[int, int, int]:
    """Returns where a part of an axis begins, how far apart its entries are, and how many it has."""
    if cut.op == "Slice":
        start = int(saved(cut.fn, "start", 0))
        start = start - 2**64 if start >= 2**63 else start
        return start % length, int(saved(cut.fn, "step", 1)), cut.shapes[0][dim]
    if cut.op == "Select":
        return dim_of(saved(cut.fn, "index", 0), length), 1, 1
    if cut.op == "Unbind":
        return output, 1, 1
    return sum(shape[dim] for shape in cut.shapes[:output]), 1, cut.shapes[output][dim]


def _how(taken: list[tuple[int, int, int]], layout: Stretches, dim: int, length: int) -> CutKind | None:
    """Returns what the parts are, on the axis of the weight; None where they are not all of it or not equal."""
    parts, size = len(taken), length // max(1, len(taken))
    if parts < _LEAST or parts * size != length:
        return None
    runs = layout[dim]
    if taken == [(at * size, 1, size) for at in range(parts)]:
        inner = math.prod(run.size for run in runs[1:])
        if runs[0].axis is not None and runs[0].first and size % inner == 0:
            return "blocks"
        single = len(runs) == 1 and size == 1 and runs[0].stride == 1
        return "interleaved" if single else "other"
    if taken == [(at, parts, size) for at in range(parts)]:
        return "interleaved" if len(runs) == 1 and runs[0].first and runs[0].stride == 1 else "other"
    return None


def _are_joined(blocks: Blocks, parts: list[Edge]) -> bool:
    """Whether parts meet again side by side before another weight."""
    reached: dict[Node, set[int]] = {}
    for part in parts:
        for node, position in _ways(blocks, part):
            if node.op in ("Cat", "Stack"):
                reached.setdefault(node, set()).add(position)
    return any(len(positions) > 1 for positions in reached.values())


def _ways(blocks: Blocks, part: Edge) -> Iterator[tuple[Node, int]]:
    """Yields the nodes after a part, before another weight, with the argument that it reaches."""
    stack = [(part.node, part.output)]
    seen = {part.node}
    while stack:
        node, output = stack.pop()
        for consumer, position in node.consumers:
            edge = consumer.inputs[position]
            if edge is None or (node is part.node and edge.output != output):
                continue
            yield consumer, position
            if consumer not in seen and consumer not in blocks.products and consumer.op in _PASSING:
                seen.add(consumer)
                stack.append((consumer, 0))
