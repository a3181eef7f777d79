"""What the nodes form: attention, gates, normalizations by hand, residual branches; and how deep each node lies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .axes import Use, contraction
from .normalization import centering, is_share, is_spread, serving
from .walk import (
    BINARY,
    NORMS,
    PARTS,
    POOLS,
    PRODUCTS,
    UNARY,
    VIEWS,
    Edge,
    Node,
    search_back,
)

SOFTMAX = frozenset({"Softmax", "SafeSoftmax"})
DROPOUT = frozenset({"NativeDropout", "FusedDropout"})
SELECTING = frozenset({"Topk", "Gather", "Index", "IndexSelect", "Sort", "Max", "Scatter", "IndexPut"})
_LINEAR_UNARY = frozenset({"Neg", "Clamp", "ClampMin", "ClampMax"}) | DROPOUT
_SQUASHING = frozenset({"Sigmoid", "Hardsigmoid", *SOFTMAX})


@dataclass(frozen=True, slots=True)
class Attention:
    """Where queries, keys and values meet."""

    query: Edge
    key: Edge
    value: Edge
    out: Node


@dataclass(frozen=True, slots=True)
class Residual:
    """A residual add.

    Attributes:
        add: the node.
        trunk: the argument that carries the skip.
        branch: the nodes between the fork and the add, on the branch.
        weights: number of weights in series on the branch.
        shortcut: number of weights on the skip, 1 for a projection.
        closers: the products that no other weight follows on the branch.
    """

    add: Node
    trunk: int
    branch: frozenset[Node]
    weights: int
    shortcut: int
    closers: frozenset[Node]


@dataclass
class Blocks:
    """Facts about the nodes of one graph.

    Attributes:
        nodes: in forward order.
        products: node → names of the matrices that multiply data there.
        origin: node → the value that it is an elementwise function of.
        nonlinear: nodes whose elementwise function so far is not affine.
        norms: normalizations, fused or written by hand.
        statistics: nodes that only serve to compute the scale of a normalization by hand.
        attentions: every attention.
        scores: nodes between the product of queries and keys and its softmax.
        gates: arguments of multiplications that only modulate the other argument.
        gate_side: nodes between a value and the gate that is computed from it (squeeze-and-excitation).
        residuals: add → its residual branch.
        followed: nodes that some later weight depends on.
        depth: weights before and in a node, on the longest path.
        residual_depth: residual adds passed, on the longest path.
    """

    nodes: list[Node]
    products: dict[Node, set[str]]
    origin: dict[Node, Edge] = field(default_factory=dict)
    nonlinear: set[Node] = field(default_factory=set)
    norms: set[Node] = field(default_factory=set)
    statistics: set[Node] = field(default_factory=set)
    attentions: list[Attention] = field(default_factory=list)
    scores: set[Node] = field(default_factory=set)
    gates: set[tuple[Node, int]] = field(default_factory=set)
    gate_side: set[Node] = field(default_factory=set)
    residuals: dict[Node, Residual] = field(default_factory=dict)
    followed: set[Node] = field(default_factory=set)
    depth: dict[Node, int] = field(default_factory=dict)
    residual_depth: dict[Node, int] = field(default_factory=dict)

    def source(self, edge: Edge) -> Edge:
        """Returns the value that this one is an elementwise function of."""
        if edge.node.op in PARTS and len(edge.node.shapes) > 1:
            return edge
        return self.origin[edge.node]


def find_blocks(nodes: list[Node], uses: list[Use]) -> Blocks:
    """Returns the structure of a graph whose weights have been followed."""
    products: dict[Node, set[str]] = {}
    for use in uses:
        if contraction(use.node, use.position) is not None and not _is_projected(use):
            products.setdefault(use.node, set()).add(use.chain.leaf)
    for node in nodes:
        if node.op == "Recurrent":
            products[node] = set(node.fn.weights)
    blocks = Blocks(nodes, products)
    for node in nodes:
        if not node.static:
            _find_origin(blocks, node)
    for node in nodes:
        if node.op.startswith("ScaledDotProduct") and len(node.data) >= 3:
            query, key, value = node.data[:3]
            blocks.attentions.append(Attention(query, key, value, node))
        elif node.op in SOFTMAX:
            _find_attention(blocks, node)
    for node in nodes:
        if node.op == "Mul" and len(node.data) == 2 and node not in blocks.norms:
            _find_gate(blocks, node)
    for node in nodes:
        if node.op in ("Add", "Sub") and len(node.data) == 2 and _may_be_residual(blocks, node):
            _find_residual(blocks, node)
    _measure_depth(blocks)
    for node in reversed(nodes):
        if any(other in products or other in blocks.followed for other, _ in node.consumers):
            blocks.followed.add(node)
    return blocks


def _is_projected(use: Use) -> bool:
    """Whether a parameter stands in the place of data: learned queries or positions that a weight projects."""
    node, first = use.node, {"Addmm": 1, "Baddbmm": 1, "Mm": 0, "Bmm": 0, "Linear": 0}.get(use.node.op)
    return first == use.position and all(edge is not None and edge.node.static for edge in node.inputs)


def _find_origin(blocks: Blocks, node: Node) -> None:
    blocks.origin[node] = Edge(node, 0)
    if node.op in NORMS:
        blocks.norms.add(node)
    if node.op in ("Mul", "Div") and len(node.data) == 2 and any(is_spread(edge.node) for edge in node.data):
        blocks.norms.add(node)  # a value over a statistic of itself, as in RMSNorm: x · rsqrt(mean(x²))
        blocks.statistics |= serving(node)
        centred = centering(node)
        if centred:
            blocks.norms.add(centred[0])
            blocks.statistics.add(centred[1])
        return
    is_part = node.op in PARTS and bool(node.data) and node.shape != node.data[0].node.shape
    elementwise = node.op in VIEWS | UNARY | BINARY or _is_elementwise_custom(node)
    if is_part or not elementwise or node in blocks.products or not node.data:
        return
    origins = {blocks.source(edge) for edge in node.data}
    if len(origins) == 1:
        blocks.origin[node] = origins.pop()
        bends = node.op in UNARY - _LINEAR_UNARY or node.custom or len(node.data) > 1
        if bends or any(edge.node in blocks.nonlinear for edge in node.data):
            blocks.nonlinear.add(node)


def _is_elementwise_custom(node: Node) -> bool:
    return node.custom and len(node.data) == 1 and node.shape == node.data[0].node.shapes[node.data[0].output]


def _find_attention(blocks: Blocks, softmax: Node) -> None:
    """Finds bmm–softmax–bmm, with scales, masks, biases and dropout in between."""
    scores, between = _first_before(blocks, softmax)
    mixed = _first_after(blocks, softmax)
    if scores is None or mixed is None:
        return
    product, position = mixed
    value = next((edge for at, edge in enumerate(product.inputs) if at != position and edge in product.data), None)
    if value is not None:
        blocks.attentions.append(Attention(scores.data[-2], scores.data[-1], value, product))
        blocks.scores |= between


def _is_meeting(blocks: Blocks, node: Node) -> bool:
    return node.op in ("Bmm", "Mm", "Baddbmm") and len(node.data) >= 2 and node not in blocks.products


def _first_before(blocks: Blocks, node: Node) -> tuple[Node | None, set[Node]]:
    """Returns the product of queries and keys behind a softmax, and the nodes between them."""
    stack = [edge.node for edge in node.data]
    passed: set[Node] = set()
    while stack:
        node = stack.pop()
        if _is_meeting(blocks, node):
            return node, passed
        if node.op in VIEWS | BINARY | UNARY | {"Index", "Cat"} and node not in blocks.products:
            passed.add(node)
            stack.extend(edge.node for edge in reversed(node.data))
    return None, passed


def _first_after(blocks: Blocks, node: Node) -> tuple[Node, int] | None:
    stack = [node]
    while stack:
        for consumer, position in stack.pop().consumers:
            if _is_meeting(blocks, consumer):
                return consumer, position
            if consumer.op in VIEWS | BINARY | DROPOUT and len(consumer.data) == 1:
                stack.append(consumer)
    return None


def _find_gate(blocks: Blocks, node: Node) -> None:
    """Marks the argument of a multiplication that only modulates the other (GLU, squeeze-and-excitation)."""
    (left, right) = node.data
    if blocks.source(left) == blocks.source(right):
        return  # x · σ(x) is one elementwise function
    ranks = [_gate_rank(blocks, edge) for edge in (left, right)]
    if max(ranks) == 0:
        return
    sizes = [math.prod(blocks.source(edge).node.shape) for edge in (left, right)]
    gate, main = (left, right) if (ranks[0], -sizes[0]) > (ranks[1], -sizes[1]) else (right, left)
    if max(ranks) == 1 and sizes[0] != sizes[1]:
        return  # what is broadcast and not squashed is a value, as in a state space model
    blocks.gates.add((node, node.inputs.index(gate)))
    blocks.gate_side |= search_back(gate.node, main.node.index + 1) if gate.node.index > main.node.index else set()


def _gate_rank(blocks: Blocks, edge: Edge) -> int:
    node = edge.node
    while node.data and (node.op in VIEWS | DROPOUT | SELECTING or (node.op == "Div" and is_share(node))):
        node = node.data[0].node
    return 2 if node.op in _SQUASHING else 1 if node in blocks.nonlinear else 0


def _trunk(blocks: Blocks, edge: Edge) -> list[tuple[Node, int]]:
    """Returns the nodes that a skip may have come through, nearest first, with the weights passed so far."""
    node, weights, adds = edge.node, 0, 0
    chain = [(node, 0)]
    passing = VIEWS | BINARY | NORMS | POOLS | DROPOUT
    while True:
        if node in blocks.residuals and adds < 3:
            step, adds = node.inputs[blocks.residuals[node].trunk], adds + 1
        elif node in blocks.products and len(node.data) == 1 and weights == 0 and node.op != "Recurrent":
            step, weights = node.data[0], 1
        elif node.op in passing and node not in blocks.products and len(node.data) == 1:
            step = node.data[0]
        else:
            return chain
        if step is None:
            return chain
        node = step.node
        chain.append((node, weights))


def _may_be_residual(blocks: Blocks, node: Node) -> bool:
    """Whether it is neither a sum of losses nor a bias of attention scores."""
    return math.prod(node.shape) > 1 and node not in blocks.scores


def _find_residual(blocks: Blocks, add: Node) -> None:
    """Finds the fork behind an add: the skip comes from it plainly, the branch through more weights."""
    found: list[tuple[int, Residual]] = []
    for trunk, branch in (add.data, add.data[::-1]):
        chain = _trunk(blocks, trunk)
        back = search_back(branch.node, chain[0][0].index)
        if chain[0][0] not in back and len(chain) > 1:
            back = search_back(branch.node, min(node.index for node, _ in chain))
        fork = next(((node, passed) for node, passed in chain if node in back), None)
        if fork is None:
            continue
        members = _between(blocks, fork[0], back)
        weights, closers = _series(blocks, members, branch.node)
        shared = _names(blocks, members) & _names(blocks, [node for node, _ in chain[: chain.index(fork)]])
        if weights > fork[1] and not shared and not _is_parallel(blocks, members, fork[1]):
            residual = Residual(add, add.inputs.index(trunk), frozenset(members), weights, fork[1], frozenset(closers))
            found.append((fork[1], residual))
    if found:
        blocks.residuals[add] = min(found, key=lambda pair: pair[0])[1]


def _names(blocks: Blocks, nodes: list[Node]) -> set[str]:
    return {name for node in nodes for name in blocks.products.get(node, ())}


def _is_parallel(blocks: Blocks, branch: list[Node], shortcut: int) -> bool:
    """Whether the branch is linear beside a weight: a low-rank addition to it (LoRA), not a residual."""
    bends = any(node in blocks.nonlinear or node in blocks.norms or node.op in SOFTMAX for node in branch)
    return shortcut > 0 and not bends


def _between(blocks: Blocks, fork: Node, back: set[Node]) -> list[Node]:
    """Returns the nodes of `back` that come after the fork and depend on it, in forward order, gates left out."""
    members = {fork}
    ordered = sorted((node for node in back if node.index > fork.index), key=lambda node: node.index)
    result = []
    for node in ordered:
        main = (edge for at, edge in enumerate(node.inputs) if edge is not None and (node, at) not in blocks.gates)
        if any(edge.node in members for edge in main):
            members.add(node)
            result.append(node)
    return result


def _series(blocks: Blocks, members: list[Node], end: Node) -> tuple[int, set[Node]]:
    """Returns the number of weights in series among members up to `end`, and the products nearest to it."""
    count: dict[Node, int] = {}
    last: dict[Node, set[Node]] = {}
    for node in members:
        main = [edge.node for at, edge in enumerate(node.inputs) if edge is not None and (node, at) not in blocks.gates]
        weight = node in blocks.products
        count[node] = max((count.get(before, 0) for before in main), default=0) + weight
        last[node] = {node} if weight else set().union(*(last.get(before, set()) for before in main))
    return count.get(end, 0), last.get(end, set())


def _measure_depth(blocks: Blocks) -> None:
    first_call: dict[frozenset[str], int] = {}
    for node in blocks.nodes:
        if node.static:
            continue
        before = [edge.node for edge in node.data]
        names = frozenset(blocks.products.get(node, ()))
        levels = sum("weight_ih" in name and "reverse" not in name for name in names)
        layers = max(1, levels) if names else 0
        depth = max((blocks.depth[other] for other in before), default=0) + layers
        if node.op == "Recurrent":  # a cell called once per time step is one layer
            depth = first_call.setdefault(names, depth)
        blocks.depth[node] = depth
        passed = max((blocks.residual_depth[other] for other in before), default=0)
        blocks.residual_depth[node] = passed + (node in blocks.residuals)


def is_product(blocks: Blocks, node: Node) -> bool:
    """Whether data meet a weight, or queries meet keys, in this node."""
    return node in blocks.products or node.op in PRODUCTS or node.op.startswith("ScaledDotProduct")
