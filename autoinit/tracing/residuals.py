"""Residual branches, how deep each node lies, and all structure put together."""

from __future__ import annotations

import math

from .attentions import size_of
from .axes import Use, contraction
from .blocks import (
    DROPOUT,
    SOFTMAX,
    AttentionBlock,
    Blocks,
    Residual,
    find_attention,
    find_gate,
    find_origin,
    find_scoring,
)
from .walk import BINARY, NORMS, POOLS, VIEWS, Edge, Node, search_back

_REPEATING = frozenset({"Expand", "Repeat"})
"""Views that show one value in several places."""


def find_blocks(nodes: list[Node], uses: list[Use]) -> Blocks:
    """Returns the structure of a graph whose weights have been followed."""
    products: dict[Node, set[str]] = {}
    for use in uses:
        scales_noise = use.chain.noise == "centred"
        if contraction(use.node, use.position) is not None and not scales_noise and not _is_projected(use):
            products.setdefault(use.node, set()).add(use.chain.leaf)
    for node in nodes:
        if node.op == "Recurrent":
            products[node] = set(node.fn.weights)
    blocks = Blocks(nodes, products)
    for node in nodes:
        if not node.static:
            find_origin(blocks, node)
    for node in nodes:
        if node.op.startswith("ScaledDotProduct") and len(node.data) >= 3:
            query, key, value = node.data[:3]
            blocks.attentions.append(AttentionBlock(query, key, value, node))
        elif node.op in SOFTMAX:
            find_attention(blocks, node)
    for node in nodes:
        if node.op == "Mul" and len(node.data) == 2 and node not in blocks.norms:
            find_gate(blocks, node)
    for node in nodes:
        if node.op in ("Add", "Sub") and len(node.data) == 2 and _may_be_residual(blocks, node):
            _find_residual(blocks, node)
    _measure_depth(blocks)
    for node in reversed(nodes):
        if any(other in products or other in blocks.followed for other, _ in node.consumers):
            blocks.followed.add(node)
    find_scoring(blocks)
    return blocks


def _is_projected(use: Use) -> bool:
    """Whether a parameter stands in the place of data: learned queries or positions that a weight projects."""
    node, first = use.node, {"Addmm": 1, "Baddbmm": 1, "Mm": 0, "Bmm": 0, "Linear": 0}.get(use.node.op)
    return first == use.position and all(edge is not None and edge.node.static for edge in node.inputs)


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
        if fork is None or _is_broadcast(add, trunk, [node for node, _ in chain[: chain.index(fork)]]):
            continue
        members = _between(blocks, fork[0], back)
        weights, closers = _series(blocks, members, branch.node)
        shared = _names(blocks, members) & _names(blocks, [node for node, _ in chain[: chain.index(fork)]])
        if weights > fork[1] and not shared and not _is_parallel(blocks, members, fork[1]):
            residual = Residual(add, add.inputs.index(trunk), frozenset(members), weights, fork[1], frozenset(closers))
            found.append((fork[1], residual))
    if found:
        blocks.residuals[add] = min(found, key=lambda pair: pair[0])[1]


def _is_broadcast(add: Node, skip: Edge, passed: list[Node]) -> bool:
    """Whether each value of a skip is added in several places: a shift that comes from a condition, and no skip.

    What makes it (adaptive normalization, FiLM) may also make a factor of an earlier branch, so that the way from
    there to the add looks like a branch.

    Args:
        add: the node.
        skip: its argument that may carry a skip.
        passed: the nodes that it has come through since the fork.
    """
    grown = [node for node in passed if node.op in _REPEATING and math.prod(node.shape) > size_of(node.data[0])]
    return bool(grown) or size_of(skip) < math.prod(add.shape)


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
        blocks.residual_depth[node] = passed + (
            _terms(blocks, blocks.residuals[node]) if node in blocks.residuals else 0
        )


def _terms(blocks: Blocks, residual: Residual) -> int:
    """Returns how many branches one add brings: 2 where attention and MLP run side by side (GPT-J, GPT-NeoX)."""
    edge = next(edge for edge in residual.add.data if edge is not residual.add.inputs[residual.trunk])
    node = edge.node
    while node.op in VIEWS | DROPOUT and len(node.data) == 1:
        node = node.data[0].node
    if node.op != "Add" or len(node.data) != 2:
        return 1
    sides = [search_back(side.node, 0) & residual.branch for side in node.data]
    attends = [any(attention.out in side for attention in blocks.attentions) for side in sides]
    return 2 if attends[0] != attends[1] and all(side & blocks.products.keys() for side in sides) else 1
