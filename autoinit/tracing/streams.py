"""Streams of residual adds: which are normalized after each, which encode, which decode; and networks side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from .attentions import PROJECTING, fed, is_cross
from .blocks import DROPOUT, Blocks, Residual
from .walk import VIEWS, Edge, Node, search_back

StackName = Literal["", "encoder", "decoder"]


def post_normed(blocks: Blocks) -> set[Node]:
    """Returns the products that close a branch f of a post-norm block, LN(x + f(x)).

    There LN(αx + f(x)) = LN(x + f(x)/α), so that a factor of the skip can be folded into the weight. The last add
    of a pre-norm network is followed by a normalization too, but its branch begins with one of its own, and its skip
    comes from another add.
    """
    allowed = _norms_of_queries(blocks)
    return {
        node
        for residual in blocks.residuals.values()
        if _is_normed(blocks, residual.add) and not _skips_on(blocks, residual)
        if not (residual.branch & blocks.norms) - allowed
        for node in residual.closers
    }


_RECTIFIERS = frozenset({"Relu", "Hardtanh", "Threshold", "ClampMin"})
"""Nodes whose slope at zero is zero, as torch has them (ReLU6 is a Hardtanh from 0)."""


def is_rectified(blocks: Blocks, product: Node) -> bool:
    """Whether what a product gives goes through a ReLU or the like before any residual add or other product.

    A weight of zeros there gets no gradient, ever.
    """
    stack = [consumer for consumer, _ in product.consumers]
    while stack:
        node = stack.pop()
        if node.op in _RECTIFIERS:
            return True
        passes = _is_scaled(node) or node in blocks.norms or (node.op == "Add" and len(node.data) == 1)
        if passes and node not in blocks.residuals:
            stack.extend(consumer for consumer, _ in node.consumers)
    return False


def _is_normed(blocks: Blocks, add: Node) -> bool:
    """Whether the sum goes into a normalization, and nowhere else."""
    stack, met = [add], False
    while stack:
        for consumer, _ in stack.pop().consumers:
            if consumer in blocks.norms or consumer in blocks.statistics:
                met = True
            elif _is_scaled(consumer):
                stack.append(consumer)
            else:
                return False
    return met


def _skips_on(blocks: Blocks, residual: Residual) -> bool:
    """Whether the skip comes from another residual add, without a normalization on the way."""
    edge = residual.add.inputs[residual.trunk]
    while edge is not None:
        node = edge.node
        if node in blocks.residuals:
            return True
        edge = node.data[0] if _is_scaled(node) else None
    return False


def _is_scaled(node: Node) -> bool:
    """Whether a node is a view of one value, or a constant or learned multiple of it (dropout's mask, a factor)."""
    return len(node.data) == 1 and node.op in VIEWS | DROPOUT | {"Mul", "Div"}


def _norms_of_queries(blocks: Blocks) -> set[Node]:
    """Returns the normalizations between a projection and its attention."""
    found: set[Node] = set()
    stack: list[Edge] = [edge for one in blocks.attentions for edge in (one.query, one.key)]
    seen = set(stack)
    while stack:
        node = stack.pop().node
        if node in blocks.norms:
            found.add(node)
        elif node.op not in PROJECTING or node in blocks.products or node in blocks.residuals:
            continue
        stack.extend(edge for edge in node.data if edge not in seen)
        seen.update(node.data)
    return found


def stacks(blocks: Blocks) -> dict[Node, StackName]:
    """Returns node → whether it encodes or decodes, in a network with cross attention.

    Encoder is what the keys and values of a cross attention are made of, decoder what else goes into it and what comes
    after it. Where a cross attention is itself part of an encoder (two streams that look at each other), none is told.
    """
    crossed = [attention for attention in blocks.attentions if is_cross(blocks, attention)]
    memory = {node for one in crossed for edge in (one.key, one.value) for node in fed(blocks, edge)}
    encoder = _behind(memory)
    outs = {attention.out for attention in crossed}
    if outs & encoder:
        return {}
    decoder = _behind(outs)
    for node in blocks.nodes:
        if node in outs or any(edge.node in decoder and edge.node not in encoder for edge in node.data):
            decoder.add(node)
    told: dict[Node, StackName] = dict.fromkeys(decoder, "decoder")
    return told | dict.fromkeys(encoder, "encoder")


def _behind(nodes: Iterable[Node]) -> set[Node]:
    return set().union(*(search_back(node, 0) for node in nodes))


def stack_of(told: dict[Node, StackName], nodes: Iterable[Node]) -> StackName:
    """Returns the stack of a parameter that is used in these nodes; none where it is used in both."""
    found = {told.get(node, "") for node in nodes}
    return found.pop() if len(found) == 1 else ""


def networks(nodes: Iterable[Node], at: Mapping[str, Sequence[Node]], matrices: Sequence[str]) -> dict[str, list[Node]]:
    """Returns the first matrix of each network → its nodes, in the order of the matrices; none for a single network.

    Two operations are of one network where one uses what the other made, or both use one parameter. That both read the
    same data makes them no network: an actor and a critic with trunks of their own are two. What holds no matrix, such
    as a temperature, is none either.

    Args:
        nodes: what the model's forward passes have made.
        at: the nodes that use each parameter, by its name.
        matrices: names of those that a network is made of, in the model's order.
    """
    root: dict[Node, Node] = {}

    def top(node: Node) -> Node:
        root.setdefault(node, node)
        while root[node] is not node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    every = list(nodes)
    for node in every:
        for edge in node.inputs:
            if edge is not None and (edge.node.inputs or edge.node.leaf):
                root[top(edge.node)] = top(node)
    for users in at.values():
        for one, other in itertools.pairwise(users):
            root[top(one)] = top(other)
    members: dict[Node, list[Node]] = {}
    for node in dict.fromkeys([*every, *(node for users in at.values() for node in users)]):
        members.setdefault(top(node), []).append(node)
    found: dict[Node, str] = {}
    for name in matrices:
        for node in at.get(name, ())[:1]:
            found.setdefault(top(node), name)
    return {name: members[node] for node, name in found.items()} if len(found) > 1 else {}
