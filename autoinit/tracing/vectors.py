"""The role of what contracts nothing: biases, scales of normalizations, position tables, tokens, scalars."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..graph import Kind, Role
from .axes import Use, contraction, is_bias, meeting, signed
from .blocks import DROPOUT, Blocks
from .walk import BINARY, NORMS, POOLS, PRODUCTS, VIEWS, Edge, Node, saved

_POSITION_NAME = re.compile(r"(^|[._])(wpe|pos|positions?|position_embeddings?|pos_embed\w*|embed_positions)([._]|$)")


@dataclass(frozen=True, slots=True)
class VectorFacts:
    """What a parameter is: its kind, its role, the weight it belongs to, where it acts, and why it must stay."""

    kind: Kind
    role: Role
    of: str | None = None
    keep: str = ""
    in_branch: bool = False
    on_skip: bool = False


_KEEP = {
    "function": "a function of it, or its inverse, multiplies the branch: no value switches that off",
    "several": "it multiplies several branches; its value is part of the design",
    "skip": "a learned scale on a skip (Admin, DeepNorm); its value is part of the design",
    "scalar": "a single learned number (a temperature, a gain); its value is part of the design",
    "token": "a learned token joined to the data; its scale belongs to the embeddings beside it",
    "table": "learned values in the place of data (queries, latents, relative positions)",
    "scores": "a learned bias of attention scores; its scale belongs to the scores",
    "rates": "the rates of a state space model (A_log); their values are part of the design",
    "noise": "it scales noise; how much of it there is, is its owner's choice",
    "dot": "values are multiplied with it and summed up, as in scores of graph attention; its owner draws it",
    "slope": "the slope of an activation (PReLU)",
}


def verdict(blocks: Blocks, uses: list[Use], by_node: dict[Node, list[Use]]) -> VectorFacts:
    """Returns what a parameter without a product is, judged by the first place where it meets data.

    Args:
        blocks: the structure.
        uses: where this parameter meets data, in forward order.
        by_node: all uses at each node, to find the weight that a bias belongs to.
    """
    use = uses[0]
    node = use.node
    if use.chain.noise == "centred":
        return VectorFacts("other", "other", keep=_KEEP["noise"])
    if is_bias(node, use.position):
        return VectorFacts("bias", "bias", of=_weight_at(node, by_node))
    if node.op in NORMS and use.position > 0:
        if use.position == 1:
            return VectorFacts("norm", "norm_scale")
        return VectorFacts("norm", "bias", of=_weight_at(node, by_node, position=1))
    size = math.prod(node.inputs[use.position].node.shape)  # type: ignore[union-attr]
    if node.op in ("Add", "Sub", "Rsub"):
        return _added(blocks, use, by_node, size)
    if node.op in ("Mul", "Div", "Pow"):
        return _multiplied(blocks, uses, size)
    if node.op in ("Cat", "Stack", "Where", "MaskedFill", "IndexPut", "MaskedScatter"):
        return VectorFacts("other", "other", keep=_KEEP["token"])
    if node.op == "PreluKernel":
        return VectorFacts("other", "other", keep=_KEEP["slope"])
    if node.op.startswith("ScaledDotProduct") or node.op in PRODUCTS:
        return VectorFacts("other", "other", keep=_KEEP["table"])
    if size == 1:
        return VectorFacts("other", "scalar", keep=_KEEP["scalar"])
    return VectorFacts("other", "other", keep=f"how it acts could not be told: it enters the operation {node.op}")


def _weight_at(node: Node, by_node: dict[Node, list[Use]], position: int | None = None) -> str | None:
    """Returns the weight that a node multiplies with, or that a normalization scales with."""
    others = [
        use.chain.leaf
        for use in by_node.get(node, ())
        if use.chain.noise != "centred"
        and (use.position == position if position is not None else not is_bias(node, use.position))
    ]
    return others[0] if others else None


def _before(node: Node, passing: frozenset[str]) -> Node:
    """Returns the first node behind `node` that does more than these operations."""
    while node.op in passing and len(node.data) == 1:
        node = node.data[0].node
    return node


def _other(use: Use) -> Edge | None:
    """Returns the data that a parameter is added to or multiplied with; None where they need no gradient."""
    return use.node.data[0] if use.node.data else None


def _added(blocks: Blocks, use: Use, by_node: dict[Node, list[Use]], size: int) -> VectorFacts:
    other = _other(use)
    wide = sum(1 for length in _lengths(use) if length > 1)
    if other is not None:
        source = _before(other.node, VIEWS)
        if source in blocks.residuals:  # x + f(x) + bias
            source = _before(_branch_end(blocks, source), VIEWS)
        scaled = _before(other.node, VIEWS | {"Mul"})
        lone = size == 1 and source.shape[-1:] != (1,)
        if source in blocks.products and source.op != "Embedding" and not lone:
            if wide <= 1:
                return VectorFacts("bias", "bias", of=next(iter(sorted(blocks.products[source]))))
            if stacked := next((one for one in by_node.get(source, ()) if _has_a_unit_each(use, one)), None):
                return VectorFacts("bias", "bias", of=stacked.chain.leaf)
        if other.node.op == "Mul" and scaled in blocks.norms:
            return VectorFacts("norm", "bias", of=_scale_of(other.node, by_node))
    if size == 1:
        return VectorFacts("other", "scalar", keep=_KEEP["scalar"])
    if wide >= 2 and use.node in blocks.scores:
        return VectorFacts("other", "position", keep=_KEEP["scores"])
    if wide >= 2:
        return VectorFacts("other", "position")
    return VectorFacts("bias", "bias", keep="" if wide == 1 else "it is added to data in an unusual way")


def _has_a_unit_each(use: Use, weight: Use) -> bool:
    """Whether a parameter has one value for each unit of a weight with several axes of outputs, such as experts'.

    Args:
        use: where the parameter is added.
        weight: what the product before it multiplies with.
    """
    if contraction(weight.node, weight.position) is None:
        return False
    mine, lengths = _own_shape(use), _own_shape(weight)
    outputs = [length for axis, length in enumerate(lengths) if axis not in meeting(weight).inside and length > 1]
    return len(outputs) > 1 and [length for length in mine if length > 1] == outputs


def _own_shape(use: Use) -> tuple[int, ...]:
    """Returns the shape of the parameter itself, before all views."""
    edge = use.node.inputs[use.position]
    stack = [] if edge is None else [edge.node]
    while stack:
        node = stack.pop()
        if node.leaf == use.chain.leaf:
            return node.shape
        stack.extend(before.node for before in node.inputs if before is not None)
    return ()


def _branch_end(blocks: Blocks, add: Node) -> Node:
    """Returns the node of a residual add's input that comes from the branch."""
    trunk = blocks.residuals[add].trunk
    return next(edge.node for at, edge in enumerate(add.inputs) if edge is not None and at != trunk)


def _scale_of(node: Node, by_node: dict[Node, list[Use]]) -> str | None:
    return next((use.chain.leaf for use in by_node.get(node, ())), None)


def _lengths(use: Use) -> tuple[int, ...]:
    edge = use.node.inputs[use.position]
    return edge.node.shapes[edge.output] if edge is not None else ()


def _multiplied(blocks: Blocks, uses: list[Use], size: int) -> VectorFacts:
    use = uses[0]
    other = _other(use)
    if other is not None and size > 1 and _before(other.node, VIEWS | {"Sub", "Mul"}) in blocks.norms:
        return VectorFacts("norm", "norm_scale")
    if "Exp" in use.chain.ops and size > 1:
        return VectorFacts("other", "other", keep=_KEEP["rates"])
    if other is not None and size > 1 and _is_summed(use):
        return VectorFacts("other", "other", keep=_KEEP["dot"])
    ends = _ends(blocks, use.node) if other is not None else None
    if ends is not None and ends[1]:
        return VectorFacts("other", "scalar", of=_closer(blocks, ends[0]), keep=_KEEP["skip"], on_skip=True)
    if size == 1 and ends is None:
        return VectorFacts("other", "scalar", keep=_KEEP["scalar"])
    inside = any(use.node in residual.branch for residual in blocks.residuals.values())
    of = _last_weight(blocks, use.node) if ends is not None else None
    return VectorFacts("other", "layer_scale", of=of, keep=_fixed(blocks, uses) if of else "", in_branch=inside)


def _is_summed(use: Use) -> bool:
    """Whether all that is multiplied with a parameter is summed up at once, along an axis that it has values for."""
    lengths = _lengths(use)
    ndim = len(use.node.shape)
    axes = {ndim - len(lengths) + at for at, length in enumerate(lengths) if length > 1}
    sums = [consumer for consumer, _ in use.node.consumers if consumer.op == "Sum"]
    if not sums or len(sums) < len(use.node.consumers):
        return False
    return all(axes & {signed(at) % ndim for at in saved(one.fn, "dim") or ()} for one in sums)


def _fixed(blocks: Blocks, uses: list[Use]) -> str:
    """Returns why a multiplier of a branch cannot switch that branch off, and no other; empty where it can.

    A step may run the model several times, and meet the same branch each time.
    """
    use = uses[0]
    branches = {(_last_weight(blocks, one.node), blocks.depth[one.node]) for one in uses if one.node.data}
    if use.node.op != "Mul" or use.chain.ops - VIEWS:
        return _KEEP["function"]
    return _KEEP["several"] if len(branches) > 1 or use.chain.part else ""


def _ends(blocks: Blocks, node: Node) -> tuple[Node, bool] | None:
    """Returns the residual add that a value goes into before anything else happens to it, and whether as its skip."""
    stack = [node]
    while stack:
        for consumer, position in stack.pop().consumers:
            if consumer in blocks.residuals:
                return consumer, position == blocks.residuals[consumer].trunk
            if consumer.op in VIEWS | BINARY | DROPOUT and len(consumer.data) == 1:
                stack.append(consumer)
    return None


def _last_weight(blocks: Blocks, node: Node) -> str | None:
    """Returns the weight whose output a multiplier scales, if only affine steps lie between them."""
    node = node.data[0].node
    while node not in blocks.products:
        if len(node.data) != 1 or node.op not in VIEWS | BINARY | DROPOUT | NORMS:
            return None
        node = node.data[0].node
    return min(blocks.products[node])


def _closer(blocks: Blocks, add: Node) -> str | None:
    closers = blocks.residuals[add].closers
    return min(min(blocks.products[node]) for node in closers) if closers else None


def is_position_table(use: Use) -> bool:
    """Whether an embedding is looked up by position: one row per place, the same for every example.

    Told by its name, or by the indices: without a batch axis, or expanded along it.
    """
    embedding, length = use.node, use.node.shape[-2] if len(use.node.shape) > 1 else 0
    indices = saved(embedding.fn, "indices")
    table = embedding.inputs[use.position]
    rows = table.node.shapes[table.output][0] if table is not None else 0
    target = _sum_of_embeddings(embedding)
    if target is None or rows < length:
        return False
    if _POSITION_NAME.search(use.chain.leaf):
        return True  # indices that are computed from a mask look like any others
    flat = len(embedding.shape) < len(target.shape) or embedding.shape[0] < target.shape[0]
    expanded = indices is not None and indices.dim() > 1 and indices.shape[0] > 1 and indices.stride(0) == 0
    if target.shape[0] > 1 and len(target.shape) > 2:
        return flat or expanded
    return flat


def kept_table(blocks: Blocks, use: Use) -> str:
    """Returns why a table that is looked up by position must stay; empty where it is added to tokens."""
    return _KEEP["scores"] if _sum_of_embeddings(use.node) in blocks.scores else ""


def _sum_of_embeddings(embedding: Node) -> Node | None:
    """Returns the add where an embedding meets another stream, if it does before anything else."""
    passing = VIEWS | NORMS | POOLS | {"NativeDropout"}
    stack = [embedding]
    while stack:
        for consumer, _ in stack.pop().consumers:
            if consumer.op == "Add" and len(consumer.data) == 2:
                return consumer
            if consumer.op in passing or (consumer.op in BINARY and len(consumer.data) == 1):
                stack.append(consumer)
    return None
