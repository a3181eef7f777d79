"""Normalizations written by hand: a value over a statistic of itself, x · rsqrt(mean(x²)) or (x − mean(x)) / std(x)."""

from __future__ import annotations

from .walk import BINARY, REDUCTIONS, UNARY, VIEWS, Node, search_back

_SPREAD = frozenset({"Pow", "Sqrt", "Rsqrt", "Std", "Var", "VarMean", "StdMean", "LinalgVectorNorm", "Norm"})


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
