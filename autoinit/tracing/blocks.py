"""What the nodes form: attention, gates, normalizations by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .walk import BINARY, NORMS, PARTS, PRODUCTS, REDUCTIONS, UNARY, VIEWS, Edge, Node, search_back

SOFTMAX = frozenset({"Softmax", "SafeSoftmax"})
_NORMALIZED = SOFTMAX | {"LogSoftmax"}
DROPOUT = frozenset({"NativeDropout", "FusedDropout"})
SELECTING = frozenset({"Topk", "Gather", "Index", "IndexSelect", "Sort", "Max", "Scatter", "IndexPut"})
_LINEAR_UNARY = frozenset({"Neg", "Clamp", "ClampMin", "ClampMax"}) | DROPOUT
_SPREAD = frozenset({"Pow", "Sqrt", "Rsqrt", "Std", "Var", "VarMean", "StdMean", "LinalgVectorNorm", "Norm"})
_SQUASHING = frozenset({"Sigmoid", "Hardsigmoid", *SOFTMAX})


@dataclass(frozen=True, slots=True)
class AttentionBlock:
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
        scoring: nodes whose values reach later weights only as the shares of a softmax.
        scores: nodes between the product of queries and keys and its softmax.
        gates: arguments of multiplications that only modulate the other argument.
        gate_side: nodes between a value and the gate that is computed from it (squeeze-and-excitation).
        residuals: add → its residual branch.
        followed: nodes that some later weight depends on.
        depth: weights before and in a node, on the longest path.
        residual_depth: residual adds passed, on the longest path; attention and MLP side by side count as two.
    """

    nodes: list[Node]
    products: dict[Node, set[str]]
    origin: dict[Node, Edge] = field(default_factory=dict)
    nonlinear: set[Node] = field(default_factory=set)
    norms: set[Node] = field(default_factory=set)
    statistics: set[Node] = field(default_factory=set)
    attentions: list[AttentionBlock] = field(default_factory=list)
    scoring: set[Node] = field(default_factory=set)
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


def find_origin(blocks: Blocks, node: Node) -> None:
    """Notes which value a node is an elementwise function of, and whether it is a normalization."""
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


def find_attention(blocks: Blocks, softmax: Node) -> None:
    """Finds bmm–softmax–bmm, with scales, masks, biases and dropout in between."""
    scores, between = _first_before(blocks, softmax)
    mixed = _first_after(blocks, softmax)
    if scores is None or mixed is None:
        return
    product, position = mixed
    value = next((edge for at, edge in enumerate(product.inputs) if at != position and edge in product.data), None)
    if value is not None:
        blocks.attentions.append(AttentionBlock(scores.data[-2], scores.data[-1], value, product))
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


def find_gate(blocks: Blocks, node: Node) -> None:
    """Marks the argument of a multiplication that only modulates the other (GLU, squeeze-and-excitation)."""
    (left, right) = node.data
    if _given(blocks, left) == _given(blocks, right):
        return  # x · σ(x) is one elementwise function, p · log p a part of an entropy
    ranks = [_gate_rank(blocks, edge) for edge in (left, right)]
    if max(ranks) == 0:
        return
    sizes = [math.prod(blocks.source(edge).node.shape) for edge in (left, right)]
    gate, main = (left, right) if (ranks[0], -sizes[0]) > (ranks[1], -sizes[1]) else (right, left)
    if max(ranks) == 1 and sizes[0] != sizes[1]:
        return  # what is broadcast and not squashed is a value, as in a state space model
    blocks.gates.add((node, node.inputs.index(gate)))
    blocks.gate_side |= search_back(gate.node, main.node.index + 1) if gate.node.index > main.node.index else set()


def _given(blocks: Blocks, edge: Edge) -> Edge:
    """Returns the value that this one is a function of, elementwise or by softmax."""
    edge = blocks.source(edge)
    while edge.node.op in _NORMALIZED and edge.node.data:
        edge = blocks.source(edge.node.data[0])
    return edge


def _gate_rank(blocks: Blocks, edge: Edge) -> int:
    node = _behind_choice(edge)
    return 2 if node.op in _SQUASHING else 1 if node in blocks.nonlinear else 0


def is_squashed(edge: Edge) -> bool:
    """Whether a value is a sigmoid or a softmax, or some of its entries."""
    return _behind_choice(edge).op in _SQUASHING


def _behind_choice(edge: Edge) -> Node:
    node = edge.node
    while node.data and (node.op in VIEWS | DROPOUT | SELECTING or (node.op == "Div" and is_share(node))):
        node = node.data[0].node
    return node


def find_scoring(blocks: Blocks) -> None:
    """Marks what only decides how much of other values is taken: scores of attention, of neighbours, of experts."""
    for node in reversed(blocks.nodes):
        if node.static or node not in blocks.followed:
            continue
        onward = [one for one, _ in node.consumers if one in blocks.products or one in blocks.followed]
        if weighs(node) or (onward and all(one in blocks.scoring for one in onward)):
            blocks.scoring.add(node)


def weighs(node: Node) -> bool:
    """Whether a value is the shares of a softmax."""
    return node.op in SOFTMAX or is_softmax(node)


def is_mixture(blocks: Blocks, node: Node, value: Node) -> bool:
    """Whether a product adds up rows of a value, by shares of a softmax or by constants, without a weight."""
    if node.op.startswith("ScaledDotProduct"):
        return len(node.data) > 2 and node.data[2].node is value
    if node.op not in ("Mm", "Bmm", "Baddbmm") or node in blocks.products:
        return False
    others = [edge.node for edge in node.data if edge.node is not value]
    while others and others[0].op in VIEWS | BINARY | DROPOUT and not weighs(others[0]) and others[0].data:
        others = [others[0].data[0].node]
    return not others or weighs(others[0])


def is_product(blocks: Blocks, node: Node) -> bool:
    """Whether data meet a weight, or queries meet keys, in this node."""
    return node in blocks.products or node.op in PRODUCTS or node.op.startswith("ScaledDotProduct")


def is_spread(node: Node) -> bool:
    """Whether a value is a statistic of the size of another: a root of a mean of squares, a deviation, a norm."""
    ops: set[str] = set()
    while node.op in REDUCTIONS | VIEWS | UNARY | BINARY and node.data:
        ops.add(node.op)
        if node.op in REDUCTIONS:
            return bool(ops & _SPREAD) or any(edge.node.op == "Pow" for edge in node.data)
        node = node.data[0].node
    return False


def serving(norm: Node) -> set[Node]:
    """Returns the nodes whose values go nowhere but into the statistic of this normalization."""
    spreads = [edge.node for edge in norm.data if is_spread(edge.node)]
    found = {norm, *(edge.node for edge in norm.data if edge.node not in spreads)}
    above = set(found)
    stack = spreads
    while stack:
        node = stack.pop()
        if node in found or node.op not in REDUCTIONS | VIEWS | UNARY | BINARY:
            continue
        if all(other in found for other, _ in node.consumers):
            found.add(node)
            stack.extend(edge.node for edge in node.data)
    return found - above


def centering(norm: Node) -> tuple[Node, Node] | None:
    """Returns (the subtraction of the mean, the mean) before a normalization by hand, if there is one."""
    for edge in norm.data:
        if edge.node.op == "Sub" and len(edge.node.data) == 2:
            mean = edge.node.data[1].node
            if mean.op in REDUCTIONS:
                return edge.node, mean
    return None


def is_softmax(node: Node) -> bool:
    """Whether a value is a softmax written by hand: an exponential over a sum of such, as over a node's neighbours."""
    if node.op != "Div" or len(node.data) != 2:
        return False
    above, below = (edge.node for edge in node.data)
    while above.op in VIEWS and above.data:
        above = above.data[0].node
    if above.op != "Exp" or not above.data:
        return False
    score = above.data[0].node
    return any(node.op == "Exp" and node.data[0].node is score for node in search_back(below, score.index))


def is_share(node: Node) -> bool:
    """Whether a value is divided by its own sum, as the weights of chosen experts are."""
    below = node.data[-1].node
    while below.op in VIEWS | {"Add"} and below.data:
        below = below.data[0].node
    return below.op == "Sum"
