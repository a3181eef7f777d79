"""The role of what multiplies data: which weight is an input, a query, a gate, the end of a residual branch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..graph import Role
from .attentions import PROJECTING, Member, members, names_of, products_behind, projections, size_of
from .axes import Use, is_block, kind_of, meeting, offset
from .blocks import DROPOUT, SELECTING, SOFTMAX, Blocks, Residual, is_squashed
from .parts import CutKind, axes_apart, cut_of
from .streams import StackName, is_rectified, post_normed, stacks
from .vectors import is_position_table
from .walk import BINARY, POOLS, UNARY, VIEWS, Edge, Node

_HALVES = 2
"""Parts of a fused weight of which one gates the other: it is no gate by itself."""


@dataclass
class Places:
    """Where each weight stands in the blocks: names of the weights by what they feed or follow.

    Attributes:
        query, key, value: weights that reach these inputs of an attention.
        before: what the weights before an attention have of it.
        attention_out: what the weights that follow an attention have of it.
        gate: weights whose output modulates another value.
        router: weights whose output, through softmax or top-k, weighs experts.
        lora: weights of a low-rank addition to another weight → that weight.
        parts: fused weights → into how many equal blocks their output is cut; 1 where it is cut otherwise.
        cuts: fused weights outside attention → what those parts are.
        apart: weights outside attention → output axes that number products of their own.
        unlike: fused queries, keys and values that are no three equal blocks → what they are.
        residual: product → its innermost residual branch.
        closing: products that close a residual branch.
        rectified: those of them, and of the last products, that a ReLU follows before the add or the loss.
        post_norm: those of them whose residual add is normalized at once.
        stacks: node → "encoder" or "decoder".
        timing: weights that set the time step of a state space model.
        last: products after which no other weight comes.
        modulating: products whose outputs only shift, scale and gate streams.
        conditioning: products that reach the outputs through those only.
    """

    query: set[str] = field(default_factory=set)
    key: set[str] = field(default_factory=set)
    value: set[str] = field(default_factory=set)
    before: dict[str, Member] = field(default_factory=dict)
    attention_out: dict[str, Member] = field(default_factory=dict)
    gate: set[str] = field(default_factory=set)
    router: set[str] = field(default_factory=set)
    lora: dict[str, str] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    cuts: dict[str, CutKind] = field(default_factory=dict)
    apart: dict[str, frozenset[int]] = field(default_factory=dict)
    unlike: dict[str, str] = field(default_factory=dict)
    residual: dict[Node, Residual] = field(default_factory=dict)
    closing: set[Node] = field(default_factory=set)
    rectified: set[Node] = field(default_factory=set)
    post_norm: set[Node] = field(default_factory=set)
    stacks: dict[Node, StackName] = field(default_factory=dict)
    timing: set[str] = field(default_factory=set)
    last: set[Node] = field(default_factory=set)
    modulating: set[Node] = field(default_factory=set)
    conditioning: set[Node] = field(default_factory=set)


def find_places(blocks: Blocks, uses: list[Use]) -> Places:
    """Returns where the weights stand."""
    places = Places()
    _place_timing(blocks, places, uses)
    _place_attentions(blocks, places, uses)
    for node, position in blocks.gates:
        edge = node.inputs[position]
        if edge is not None:
            _place_gate(blocks, places, edge)
    for node in blocks.nodes:
        if node.op in ("Add", "Sub") and len(node.data) == 2 and node not in blocks.residuals:
            _place_lora(blocks, places, node)
    for use in uses:
        if use.chain.leaf in blocks.products.get(use.node, ()) and use.node.op != "Recurrent":
            _place_parts(blocks, places, use)
    for node in blocks.nodes:
        _place_weighing(blocks, places, uses, node)
    for residual in sorted(blocks.residuals.values(), key=lambda one: -len(one.branch)):
        places.closing |= residual.closers
        for node in residual.branch & blocks.products.keys():
            places.residual[node] = residual  # sorted by size: the innermost is set last
    _place_crossed(blocks, places)
    places.last = blocks.products.keys() - blocks.followed
    places.rectified = {node for node in places.closing | places.last if is_rectified(blocks, node)}
    places.post_norm, places.stacks = post_normed(blocks), stacks(blocks)
    return places


def _place_timing(blocks: Blocks, places: Places, uses: list[Use]) -> None:
    """Finds what makes Δ in exp(Δ · A), A = −exp(A_log): the time step of a state space model."""
    for use in uses:
        if use.node.op == "Mul" and "Exp" in use.chain.ops and len(use.chain.axes) > 1:
            for edge in use.node.data:
                places.timing |= names_of(blocks, products_behind(blocks, edge, VIEWS | UNARY | BINARY))


def _place_attentions(blocks: Blocks, places: Places, uses: list[Use]) -> None:
    for attention in blocks.attentions:
        query, key, value = projections(blocks, attention)
        places.query |= names_of(blocks, query)
        places.key |= names_of(blocks, key)
        places.value |= names_of(blocks, value)
        for node in query.keys() & key.keys() & value.keys():
            _place_cut(blocks, places, uses, node, [part[node] for part in (query, key, value)])
        for node in (key.keys() & value.keys()) - query.keys():
            _place_cut(blocks, places, uses, node, [part[node] for part in (key, value)])
    places.before, places.attention_out = members(blocks, uses)


def _place_cut(blocks: Blocks, places: Places, uses: list[Use], product: Node, parts: list[Edge]) -> None:
    """Tells into how many equal blocks the output of a fused projection is cut."""
    even = len({size_of(part) for part in parts}) == 1
    full = sum(map(size_of, parts)) == math.prod(product.shape)
    cut = any(part.node is not product for part in parts)
    for use in uses:
        name = use.chain.leaf
        if use.node is not product or name not in blocks.products[product]:
            continue
        ordered = sorted(map(offset, parts)) == [offset(part) for part in parts]
        if even and full and ordered and all(is_block(use, part) for part in parts):
            if places.parts.get(name) != 1:
                places.parts[name] = max(len(parts), places.parts.get(name, 0))
            continue
        places.parts[name] = 1
        if cut and len(parts) == 3:
            kind = "beside other outputs" if not full else "interleaved" if ordered else "in another order"
            places.unlike[name] = kind if even else "of different widths"


def _place_crossed(blocks: Blocks, places: Places) -> None:
    """Counts keys and values that come from elsewhere (cross-attention) to the branch that they end in."""
    for attention in blocks.attentions:
        around = [one for one in blocks.residuals.values() if attention.out in one.branch]
        if around:
            inner = min(around, key=lambda one: len(one.branch))
            for edge in (attention.key, attention.value):
                for node in products_behind(blocks, edge, PROJECTING):
                    places.residual.setdefault(node, inner)


def _place_gate(blocks: Blocks, places: Places, edge: Edge) -> None:
    """Tells a gate from a router: a router's softmax or top-k makes its outputs compete."""
    passing = VIEWS | UNARY | BINARY | SOFTMAX | SELECTING | {"Sum", "LogSoftmax"}
    competing = False
    node, stack, seen = edge.node, [edge.node], {edge.node}
    while stack:
        node = stack.pop()
        competing = competing or node.op in SOFTMAX | {"Topk"}
        if node not in blocks.products and (node.op in passing or node in blocks.norms):
            for before in node.data:
                if before.node not in seen:
                    seen.add(before.node)
                    stack.append(before.node)
    names = names_of(blocks, (node for node in seen if node in blocks.products and len(_outputs(node)) == 1))
    if competing:
        places.router |= names
    else:
        places.gate |= names


def _outputs(node: Node) -> set[int]:
    return set(range(len(node.shapes)))


def _place_weighing(blocks: Blocks, places: Places, uses: list[Use], node: Node) -> None:
    """Finds the router of experts whose outputs a product of two values weighs and adds up."""
    if node.op not in ("Bmm", "Mm", "Baddbmm") or node in blocks.products or len(node.data) != _HALVES:
        return
    if any(attention.out is node for attention in blocks.attentions):
        return
    stacked = {use.node for use in uses if places.apart.get(use.chain.leaf) or use.node.op == "Bmm"}
    for gate, value in (node.data, node.data[::-1]):
        said = products_behind(blocks, value, VIEWS | UNARY | BINARY)
        if is_squashed(gate) and said and stacked.issuperset(said):
            _place_gate(blocks, places, gate)


def _place_parts(blocks: Blocks, places: Places, use: Use) -> None:
    """Tells where the product with a weight outside attention stands for several, side by side or stacked."""
    name = use.chain.leaf
    if name in places.parts or name in places.query | places.key | places.value:
        return
    places.apart[name] = axes_apart(blocks, use)
    units = [axis for axis in meeting(use).outside if axis not in places.apart[name]]
    cut = cut_of(blocks, use, units[0]) if units else None
    if cut is not None:
        places.parts[name], places.cuts[name] = cut.parts, cut.how


def _place_lora(blocks: Blocks, places: Places, add: Node) -> None:
    """Finds x·W + (x·A)·B with a rank below W's."""
    passing = VIEWS | DROPOUT | BINARY
    for base, extra in (add.data, add.data[::-1]):
        big = _chain(blocks, base, passing, 1)
        small = _chain(blocks, extra, passing, 2)
        if len(big) == 1 and len(small) == 2 and small[-1].shape[-1:] < big[0].shape[-1:]:
            rank = small[-1].shape[-1]
            if 2 * rank <= big[0].shape[-1] and _fed(small[-1]) == _fed(big[0]):
                for name in names_of(blocks, small):
                    places.lora[name] = sorted(blocks.products[big[0]])[0]


def _chain(blocks: Blocks, edge: Edge, passing: frozenset[str], count: int) -> list[Node]:
    """Returns up to `count` products in series behind a value, nearest first."""
    found: list[Node] = []
    node: Node | None = edge.node
    while node is not None:
        if node in blocks.products:
            found.append(node)
        if len(found) == count or not (node in blocks.products or node.op in passing) or len(node.data) != 1:
            break
        node = node.data[0].node
    return found


def _fed(node: Node) -> Node | None:
    """Returns the node that a product takes its data from; None where those need no gradient."""
    passing = VIEWS | DROPOUT | {"Mul"}
    while node.data:
        node = node.data[0].node
        if node.op not in passing or len(node.data) != 1:
            return node
    return None


def member_of(places: Places, name: str, role: Role) -> Member:
    """Returns what a weight of this role has of its attention; nothing outside attention."""
    if role == "attention_out":
        return places.attention_out[name]
    return places.before[name] if role in ("query", "key", "value", "qkv") else Member("", 0, cross=False)


def role_of(blocks: Blocks, places: Places, name: str, uses: list[Use]) -> Role:
    """Returns the role of a weight that multiplies data at these places (in forward order)."""
    node = uses[0].node
    if kind_of(node) == "embedding":
        return "position" if is_position_table(uses[0]) else "embedding"
    if name in places.lora:
        return "lora"
    attention = [group for group in (places.query, places.key, places.value) if name in group]
    if len(attention) >= 2 and name in places.key:
        return "qkv"
    if attention:
        return "query" if name in places.query else "key" if name in places.key else "value"
    if name in places.router:
        return "router"
    if name in places.gate and places.parts.get(name, 1) != _HALVES:
        return "gate"
    if name in places.attention_out:
        return "attention_out"
    last = uses[-1].node in places.last
    if any(use.node in places.closing and not (last and places.residual[use.node].shortcut) for use in uses):
        return "residual_out"
    if last:
        return "output"
    if _is_recurrent(blocks, uses):
        return "recurrent"
    return "input" if blocks.depth[node] <= 1 and not _is_embedded(blocks, node) else "hidden"


def _is_recurrent(blocks: Blocks, uses: list[Use]) -> bool:
    """Whether a square weight first meets a state that depends on nothing, and later its own results.

    Its output is added to that of another weight, which takes the input of the time step.
    """
    first, last = uses[0].node, uses[-1].node
    sums = [consumer for node in (first, *_views_of(first)) for consumer, _ in node.consumers if consumer.op == "Add"]
    if not any(len(products_behind(blocks, Edge(total, 0), VIEWS | {"Add"})) > 1 for total in sums):
        return False
    square = first.shape[-1:] == last.shape[-1:] and len(set(_operand(uses[0]))) == 1
    return square and not first.data and any(blocks.depth[edge.node] > 0 for edge in last.data)


def _views_of(node: Node) -> list[Node]:
    return [consumer for consumer, _ in node.consumers if consumer.op in VIEWS]


def _operand(use: Use) -> tuple[int, ...]:
    edge = use.node.inputs[use.position]
    return edge.node.shapes[edge.output] if edge is not None else ()


def _is_embedded(blocks: Blocks, node: Node) -> bool:
    return any(blocks.depth[edge.node] > 0 for edge in node.data)


def is_normalized(blocks: Blocks, product: Node) -> bool:
    """Whether a normalization follows before any nonlinearity or residual add, on every way out."""
    passing = (VIEWS | BINARY | POOLS | DROPOUT | {"Cat"}) - {"Maximum", "Minimum", "Where"}
    stack, seen, met = [product], {product}, False
    while stack:
        for consumer, _ in stack.pop().consumers:
            if consumer in blocks.norms or consumer in blocks.statistics:
                met = True
            elif (
                (consumer.op in ("Add", "Sub") and None in consumer.inputs)  # data without a gradient: a skip
                or consumer.op not in passing
                or consumer in blocks.residuals
                or (len(consumer.data) > 1 and consumer.op != "Cat")
                or consumer in blocks.products
                or consumer in blocks.nonlinear
            ):
                return False
            elif consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
    return met
