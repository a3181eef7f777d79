"""Streams of residual adds: which are normalized, encode and decode, what modulates them; and networks apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .attentions import PROJECTING, fed, is_cross
from .blocks import DROPOUT, Blocks, Residual
from .multipliers import addend
from .tape import Call
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


@dataclass
class _Uses:
    """What the outputs of one product do to other values.

    Attributes:
        scaled: products of 1 + s and a stream.
        gated: products of it and a residual branch, added to the skip at once.
        shifted: sums with a stream → what that is.
    """

    scaled: set[Node] = field(default_factory=set)
    gated: set[Node] = field(default_factory=set)
    shifted: dict[Node, Node] = field(default_factory=dict)


def modulating(blocks: Blocks, calls: Mapping[Any, Call]) -> set[Node]:
    """Returns the products whose outputs only shift, scale and gate streams (adaptive normalization, FiLM).

    Each part scales a stream as 1 + s, multiplies a residual branch that does not make it, or shifts what is so scaled
    or is normalized; so none of them does anything at zero but to close its branch. One that only shifts is none,
    unless another one scales the same stream: a weight whose output is added to a stream is common.

    Args:
        blocks: the structure.
        calls: autograd node → the call that made it.
    """
    found = {node: uses for node in blocks.products if (uses := _uses(blocks, calls, node)) is not None}
    scaled = set().union(*(uses.scaled for uses in found.values()))
    return {
        node
        for node, uses in found.items()
        if all(stream in scaled or _is_normalized(blocks, stream) for stream in uses.shifted.values())
        if uses.scaled or uses.gated or (uses.shifted and scaled.issuperset(uses.shifted.values()))
    }


def _uses(blocks: Blocks, calls: Mapping[Any, Call], product: Node) -> _Uses | None:
    """Returns what the outputs of a product do to other values; None where they do anything else as well."""
    uses = _Uses()
    stack = [(product, 0.0)]
    while stack:
        node, added = stack.pop()
        for consumer, position in node.consumers:
            others = [edge for at, edge in enumerate(consumer.inputs) if at != position and edge is not None]
            data = [edge.node for edge in others if not edge.node.static]
            if consumer in blocks.products:
                return None
            if data:
                if not _acts(blocks, uses, (consumer, position), product, added):
                    return None
            elif _keeps_zero(consumer, added):
                stack.append((consumer, added))
            elif consumer.op in ("Add", "Sub") and (others or addend(consumer, calls.get(consumer.fn))):
                stack.append((consumer, added + (0.0 if others else addend(consumer, calls.get(consumer.fn)))))
            else:
                return None
    return uses


def _keeps_zero(node: Node, added: float) -> bool:
    """Whether a node makes zero of zero, and keeps a number that was added: a view, or of what was not shifted more."""
    return node.op in VIEWS | DROPOUT or (node.op in ("Mul", "Div", "Tanh", "Neg") and added == 0)


def _acts(blocks: Blocks, uses: _Uses, place: tuple[Node, int], product: Node, added: float) -> bool:
    """Whether a product's output shifts, scales or gates another value in a node; notes it.

    Args:
        blocks: the structure.
        uses: where it is noted.
        place: where the output meets the other value: a node and the argument.
        product: that puts it out.
        added: number that has been added to the output before.
    """
    node, position = place
    if node.op == "Addcmul" and position == 0:  # a shift, and the product of two others
        uses.shifted[node] = node
        return added == 0
    sides = [_plain(edge.node) for edge in (node.data[-2:] if node.op == "Addcmul" else node.data)]
    if len(sides) != 2 or sides[0] is sides[1] or all(_made_of(side, product) for side in sides):
        return False
    if node.op in ("Mul", "Addcmul") and math.isclose(added, 1.0):
        uses.scaled.add(node)
    elif node.op == "Mul" and added == 0 and _closes(blocks, node, product):
        uses.gated.add(node)
    elif node.op in ("Add", "Sub") and added == 0:
        uses.shifted[node] = next(side for side in sides if not _made_of(side, product))
    else:
        return False
    return True


def _plain(node: Node) -> Node:
    """Returns the node that a value is a view of."""
    while node.op in VIEWS and len(node.data) == 1:
        node = node.data[0].node
    return node


def _made_of(node: Node, product: Node) -> bool:
    """Whether a value is what a product puts out, in parts and up to constants and biases."""
    while node is not product:
        if len(node.data) != 1 or node.op not in VIEWS | DROPOUT | {"Add", "Sub", "Mul", "Div", "Tanh", "Neg"}:
            return False
        node = node.data[0].node
    return True


def _closes(blocks: Blocks, gated: Node, product: Node) -> bool:
    """Whether a gated value goes nowhere but into residual adds, as a branch that does not make the gate itself."""
    stack, met = [gated], False
    while stack:
        for consumer, position in stack.pop().consumers:
            residual = blocks.residuals.get(consumer)
            if residual is not None and position != residual.trunk and product not in residual.branch:
                met = True
            elif residual is None and _is_scaled(consumer):
                stack.append(consumer)
            else:
                return False
    return met


def _is_normalized(blocks: Blocks, node: Node) -> bool:
    """Whether a value is what a normalization gives, with its own scale and bias."""
    while node not in blocks.norms and node.op in VIEWS | {"Mul", "Add"} and len(node.data) == 1:
        node = node.data[0].node
    return node in blocks.norms


def conditioning(blocks: Blocks, modulating: set[Node]) -> set[Node]:
    """Returns the products that reach the outputs through modulating ones only.

    Args:
        blocks: the structure.
        modulating: products whose outputs shift, scale and gate.
    """
    if not modulating:
        return set()
    stack = [node for node in blocks.nodes if not node.consumers]
    otherwise = set(stack)
    while stack:
        node = stack.pop()
        for edge in () if node in modulating else node.inputs:
            if edge is not None and edge.node not in otherwise:
                otherwise.add(edge.node)
                stack.append(edge.node)
    return blocks.products.keys() - modulating - otherwise


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
            if edge is not None and (edge.node.op != "AccumulateGrad" or edge.node.leaf):
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
