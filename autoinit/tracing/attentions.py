"""The weights around each attention: which belong together, how many heads they have, where their keys come from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .axes import Use, contraction, width
from .blocks import DROPOUT, AttentionBlock, Blocks
from .walk import BINARY, NORMS, PARTS, POOLS, UNARY, VIEWS, Edge, Node, search_back

PROJECTING = VIEWS | BINARY | DROPOUT | {"Neg", "Cat", "Stack", "Index", "ConstantPadNd", "CopySlices"}
"""What lies between a projection and the attention: heads, scales, rotary positions, normalizations."""

_CARRYING = VIEWS | BINARY | NORMS | POOLS | UNARY | DROPOUT | {"Cat", "Stack", "Index", "CopySlices"}
"""What a stream may pass on the way to a projection."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a weight has of the attention that it feeds or follows.

    Attributes:
        attention: the name of its query or fused weight.
        heads: of the queries; of a key or value weight its own number.
        cross: keys come from another stream than queries.
    """

    attention: str
    heads: int
    cross: bool


def names_of(blocks: Blocks, nodes: Iterable[Node]) -> set[str]:
    """Returns the names of the weights in these products."""
    return {name for node in nodes for name in blocks.products[node]}


def size_of(edge: Edge) -> int:
    """Returns the number of elements of a value."""
    return math.prod(edge.node.shapes[edge.output])


def products_behind(blocks: Blocks, edge: Edge, passing: frozenset[str]) -> dict[Node, Edge]:
    """Returns the products that reach a value through these operations → the part of their output that does."""
    found: dict[Node, Edge] = {}
    stack: list[tuple[Edge, Edge | None]] = [(edge, None)]
    seen: set[tuple[Edge, Edge | None]] = set()
    while stack:
        item = stack.pop()
        value, part = item
        if item in seen:
            continue
        seen.add(item)
        node = value.node
        if node in blocks.products:
            found.setdefault(node, part or value)
        elif node in blocks.norms or (node.op in passing and node not in blocks.residuals):
            smaller = node.op in PARTS and bool(node.data) and size_of(value) < size_of(node.data[0])
            stack.extend((before, value if smaller else part) for before in node.data)
    return found


def products_after(blocks: Blocks, node: Node) -> set[Node]:
    """Returns the products that take a value next, on its main path."""
    passing = VIEWS | NORMS | DROPOUT | {"Cat", "Stack"}
    found: set[Node] = set()
    stack = [node]
    while stack:
        for consumer, position in stack.pop().consumers:
            if consumer in blocks.products:
                found.add(consumer)
            elif consumer in blocks.residuals or (consumer, position) in blocks.gates:
                continue
            elif consumer.op in passing | BINARY:
                stack.append(consumer)
    return found


def members(blocks: Blocks, uses: list[Use]) -> tuple[dict[str, Member], dict[str, Member]]:
    """Returns (what the weights before an attention have of it, what those after it have), by name.

    Of a weight that belongs to several attentions, the first counts.
    """
    widths = {(use.node, use.chain.leaf): width(use) for use in uses}
    before: dict[str, Member] = {}
    after: dict[str, Member] = {}
    for attention in blocks.attentions:
        inputs = projections(blocks, attention)
        heads = _heads(blocks, attention, inputs, widths)
        name, cross = _group(blocks, inputs), is_cross(blocks, attention)
        for products, count in zip(inputs, heads, strict=True):
            for own in names_of(blocks, products):
                before.setdefault(own, Member(name or own, count, cross))
        for own in names_of(blocks, products_after(blocks, attention.out)):
            after.setdefault(own, Member(name or own, heads[0], cross))
    return before, after


def projections(blocks: Blocks, attention: AttentionBlock) -> list[dict[Node, Edge]]:
    """Returns the products that make queries, keys and values, each → the part of its output that does.

    A weight that feeds another one of them too is left out: the compression in latent attention, whose output holds
    a few rotary channels beside the latents.
    """
    found = []
    for edge in (attention.query, attention.key, attention.value):
        products = products_behind(blocks, edge, PROJECTING)
        early = min((node.index for node in products), default=0)
        fed_on = {other for node in products if len(products) > 1 for other in search_back(node, early) - {node}}
        found.append({node: part for node, part in products.items() if node not in fed_on})
    return found


def _group(blocks: Blocks, inputs: list[dict[Node, Edge]]) -> str:
    """Returns the name of the weight of queries, keys and values in one, else of the first that there is."""
    named = [names_of(blocks, products) for products in inputs]
    fused = named[0] & named[1] & named[2]
    if fused:
        return min(fused)
    first = next((products for products in inputs if products), {})
    return min((node.index, name) for node in first for name in blocks.products[node])[1] if first else ""


def _heads(
    blocks: Blocks, attention: AttentionBlock, inputs: list[dict[Node, Edge]], widths: dict[tuple[Node, str], int]
) -> list[int]:
    """Returns the heads of queries, keys and values: the width of their weight over the width of a head."""
    each, of_value = _shape(attention.query)[-1], _value_width(attention)
    found = [_ratio(blocks, inputs, at, widths, of_value if at == 2 else each) for at in range(3)]
    for at, edge in enumerate((attention.query, attention.key)):
        if len(products_behind(blocks, edge, PROJECTING)) > len(inputs[at]):  # a head is joined from two weights
            found[at] = 0
    shape = _shape(attention.query)
    query = found[0] or (shape[1] if len(shape) == 4 else 0) or found[1] or 1
    return [query, found[1] or query, found[2] or query]


def _ratio(
    blocks: Blocks, inputs: list[dict[Node, Edge]], at: int, widths: dict[tuple[Node, str], int], each: int
) -> int:
    for product, part in sorted(inputs[at].items(), key=lambda item: item[0].index):
        fused = any(product in other for index, other in enumerate(inputs) if index != at)
        share = size_of(part) if fused else size_of(Edge(product, 0))
        for name in sorted(blocks.products[product]):
            elements = widths.get((product, name), 0) * share
            if elements and elements % (each * math.prod(product.shape)) == 0:
                return elements // (each * math.prod(product.shape))
    return 0


def _shape(edge: Edge) -> tuple[int, ...]:
    return edge.node.shapes[edge.output]


def _value_width(attention: AttentionBlock) -> int:
    at = attention.out.inputs.index(attention.value)
    found = contraction(attention.out, at)
    return _shape(attention.value)[found.outside[0] if found and found.outside else -1]


def is_cross(blocks: Blocks, attention: AttentionBlock) -> bool:
    """Whether the keys come from another stream than the queries.

    Keys that are a reduction of the query's stream do not, nor do those of an earlier layer of the same stream.
    """
    query, key = (_sources(blocks, fed(blocks, edge)) for edge in (attention.query, attention.key))
    if not (query or key) or query & key:
        return False
    return not key & _trunk_nodes(blocks, query)


def fed(blocks: Blocks, edge: Edge) -> list[Node]:
    """Returns the nodes whose values the projections behind an input of an attention take."""
    products = products_behind(blocks, edge, PROJECTING)
    return [before.node for product in products for before in product.data] if products else [edge.node]


def _sources(blocks: Blocks, nodes: list[Node]) -> set[Node]:
    """Returns where values come from, through weights too: residual adds, attentions, tables, data."""
    found: set[Node] = set()
    stack, seen = list(nodes), set(nodes)
    while stack:
        node = stack.pop()
        passes = node.op in _CARRYING or node in blocks.norms or node in blocks.statistics
        if node in blocks.products:
            passes = node.op != "Recurrent"
        if node in blocks.residuals or not node.data or not passes:
            found.add(node)
            continue
        for edge in node.data:
            if edge.node not in seen:
                seen.add(edge.node)
                stack.append(edge.node)
    return found


def _trunk_nodes(blocks: Blocks, nodes: set[Node]) -> set[Node]:
    """Returns the nodes along the skips behind these."""
    found: set[Node] = set()
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        residual = blocks.residuals.get(node)
        skip = node.inputs[residual.trunk] if residual else None
        if skip is not None:
            stack.extend(_sources(blocks, [skip.node]))
    return found
