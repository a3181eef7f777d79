"""How a weight meets the data: which of its axes are contracted, followed from the leaf through every view."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..graph import Kind
from .layout import RESHAPES, Stretches, block_axis, moved, of_data, of_parameter, rearranged
from .multipliers import NoiseKind, addend, constant, is_masked, noise
from .tape import Call
from .walk import NORMS, PARTS, VIEWS, Edge, Node, saved

Axes = tuple[frozenset[int], ...]
"""For each axis of a view, the axes of the parameter that it runs along."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A parameter as it looks after some views.

    Attributes:
        leaf: the parameter's name.
        axes: what became of its axes.
        ops: the operations passed.
        part: it is only a part of the parameter.
        cut: the axis of the parameter of which that part is a block of neighbours; None where it is no block.
        layout: where the elements of the parameter lie in it.
        constant: what it has been multiplied with.
        offset: the number that has been added to it.
        noise: what has multiplied it at random.
    """

    leaf: str
    axes: Axes
    ops: frozenset[str] = frozenset()
    part: bool = False
    cut: int | None = None
    layout: Stretches = ()
    constant: float = 1.0
    offset: float = 0.0
    noise: NoiseKind = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A parameter at an argument of a node that also takes data."""

    chain: Chain
    node: Node
    position: int


@dataclass(frozen=True, slots=True)
class Contraction:
    """The axes of one operand of a product: summed over, kept as units, or neither (a batch)."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]


_CONTRACTIONS: dict[tuple[str, int], Contraction] = {
    ("Mm", 0): Contraction((1,), (0,)),
    ("Mm", 1): Contraction((0,), (1,)),
    ("Addmm", 1): Contraction((1,), (0,)),
    ("Addmm", 2): Contraction((0,), (1,)),
    ("Bmm", 0): Contraction((2,), (1,)),
    ("Bmm", 1): Contraction((1,), (2,)),
    ("Baddbmm", 1): Contraction((2,), (1,)),
    ("Baddbmm", 2): Contraction((1,), (2,)),
    ("GroupedMm", 1): Contraction((1,), (2,)),
    ("Mv", 0): Contraction((1,), (0,)),
    ("Mv", 1): Contraction((0,), ()),
    ("Addmv", 1): Contraction((1,), (0,)),
    ("Addmv", 2): Contraction((0,), ()),
    ("Dot", 0): Contraction((0,), ()),
    ("Dot", 1): Contraction((0,), ()),
    ("Linear", 1): Contraction((1,), (0,)),
    ("Trilinear", 1): Contraction((1, 2), (0,)),
    ("Embedding", 0): Contraction((), (1,)),
    ("EmbeddingBag", 0): Contraction((), (1,)),
}
_BIAS = {
    ("Addmm", 0),
    ("Baddbmm", 0),
    ("Addmv", 0),
    ("Linear", 2),
    ("Convolution", 2),
    ("ConvolutionOverrideable", 2),
}


def contraction(node: Node, position: int) -> Contraction | None:
    """Returns how a product treats the axes of this argument; None where it is no factor."""
    if node.op.startswith("Convolution") and position == 1:
        edge = node.inputs[1]
        ndim = len(edge.node.shapes[edge.output]) if edge else 4
        kernel = tuple(range(2, ndim))
        transposed = bool(saved(node.fn, "transposed", False))
        return Contraction((0, *kernel), (1,)) if transposed else Contraction((1, *kernel), (0,))
    return _CONTRACTIONS.get((node.op, position))


def is_bias(node: Node, position: int) -> bool:
    """Whether a product adds this argument to its result."""
    return (node.op, position) in _BIAS


def follow(nodes: list[Node], calls: Mapping[Any, Call]) -> list[Use]:
    """Returns every place where a parameter meets data, in forward order.

    Args:
        nodes: in forward order.
        calls: what the tape recorded.
    """
    chains: dict[Node, tuple[Chain, ...]] = {}
    uses: list[Use] = []
    for node in nodes:
        if node.leaf:
            axes = tuple(frozenset({axis}) for axis in range(len(node.shape)))
            chains[node] = (Chain(node.leaf, axes, layout=of_parameter(node.shape)),)
        elif node.static:
            chains[node] = tuple(
                _through(node, position, chain, calls.get(node.fn))
                for position, edge in enumerate(node.inputs)
                if edge is not None
                for chain in chains[edge.node]
            )
        else:
            uses += [
                Use(replace(chain, noise=noise(node, position, calls.get(node.fn), chain.noise)), node, position)
                for position, edge in enumerate(node.inputs)
                if edge is not None and edge.node.static
                for chain in chains[edge.node]
            ]
    return uses


def _through(node: Node, position: int, chain: Chain, call: Call | None) -> Chain:
    edge = node.inputs[position]
    before = edge.node.shapes[edge.output] if edge else ()
    axes = _moved(node, chain.axes, before)
    if len(axes) != len(node.shape):
        axes = _broadcast(axes, len(node.shape))
    cuts = node.op in VIEWS and math.prod(node.shape) < math.prod(before)
    cut = block_axis(node, 0, chain.layout) if cuts and not chain.part and node.op in PARTS else chain.cut
    layout = moved(node, chain.layout, before)
    factor = 1.0 if is_masked(call) else constant(node, position)
    return Chain(
        chain.leaf,
        axes,
        chain.ops | {node.op},
        chain.part or cuts,
        cut,
        layout,
        chain.constant * factor,
        chain.offset * factor + addend(node, call),
        noise(node, position, call, chain.noise),
    )


def _moved(node: Node, axes: Axes, before: tuple[int, ...]) -> Axes:
    if node.op in RESHAPES:
        return _regrouped(axes, before, node.shape)
    return rearranged(node, axes, len(before), frozenset())


def _broadcast(axes: Axes, ndim: int) -> Axes:
    return (frozenset(),) * (ndim - len(axes)) + axes[max(0, len(axes) - ndim) :]


def _regrouped(axes: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """Returns the axes after a reshape: merged or split axes run along all that they were made of."""
    result: list[frozenset[int]] = []
    taken = 0
    position = 0
    while position < len(after):
        if after[position] == 1:
            result.append(frozenset())
            position += 1
            continue
        group: frozenset[int] = frozenset()
        have, want, members = 1, 1, 0
        while have != want or have == 1:
            if have <= want and taken < len(before):
                have *= before[taken]
                group |= axes[taken] if before[taken] > 1 else frozenset()
                taken += 1
            elif position < len(after):
                want *= after[position]
                position, members = position + 1, members + 1
            else:
                break
        result += [group] * members
    return tuple(result)


def normalizes(ops: frozenset[str]) -> bool:
    """Whether a weight that passed these operations has lost its own scale (weight standardization)."""
    return bool(ops & (NORMS | {"Var", "Std", "VarMean", "StdMean", "LinalgVectorNorm", "Norm", "Rsqrt"}))


def kind_of(node: Node) -> Kind:
    """Returns how a product acts."""
    if node.op.startswith("Convolution"):
        return "conv_transposed" if saved(node.fn, "transposed", False) else "conv"
    if node.op.startswith("Embedding"):
        return "embedding"
    return "bilinear" if node.op == "Trilinear" else "linear"


def meeting(use: Use) -> Contraction:
    """Returns which of the parameter's own axes are inputs and which are outputs."""
    view = contraction(use.node, use.position) or Contraction((), ())
    axes = use.chain.axes
    inside = frozenset(axis for at in view.inside if at < len(axes) for axis in axes[at])
    outside = frozenset(axis for at in view.outside if at < len(axes) for axis in axes[at])
    # An axis that is split into heads and summed over in part counts as an input.
    return Contraction(tuple(sorted(inside)), tuple(sorted(outside - inside)))


def is_block(use: Use, part: Edge) -> bool:
    """Whether a part of a product's output comes from a block of neighbours on the weight's first output axis."""
    path: list[Node] = []
    node = part.node
    while node is not use.node:
        if not node.data or node.index < use.node.index:
            return False
        path.append(node)
        node = node.data[0].node
    layout = in_output(use)
    for node in path[:0:-1]:
        edge = node.data[0]
        layout = moved(node, layout, edge.node.shapes[edge.output])
    outside = meeting(use).outside
    return bool(path and outside) and block_axis(part.node, part.output, layout) == outside[0]


def offset(part: Edge) -> int:
    """Returns where a part begins in what it was cut from; among the results of one cut, which of them it is."""
    node = part.node
    if len(node.shapes) > 1 or not node.data:
        return part.output
    before = node.data[0].node.shapes[node.data[0].output]
    length = before[signed(saved(node.fn, "dim", 0))]
    return signed(saved(node.fn, "start", saved(node.fn, "index", 0))) % max(1, length)


def signed(number: int) -> int:
    """Returns an index that autograd saved, which wraps negative ones around 2⁶⁴."""
    return number - 2**64 if number >= 2**63 else number


def in_output(use: Use) -> Stretches:
    """Returns where the elements of the weight's output axes lie in the output of its product."""
    node, view = use.node, contraction(use.node, use.position)
    layout = list(of_data(node.shape))
    if view is None or not layout:
        return tuple(layout)
    for axis in view.outside:
        layout[_unit_axis(node, axis)] = use.chain.layout[axis]
    if node.op in ("Bmm", "Baddbmm"):
        layout[0] = use.chain.layout[0]
    return tuple(layout)


def _unit_axis(node: Node, axis: int) -> int:
    """Returns the axis of a product's output that runs along this outside axis of its weight."""
    if node.op in ("Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Addmv"):
        return axis
    return 1 if node.op.startswith("Convolution") else len(node.shape) - 1  # the others put their units last


def width(use: Use) -> int:
    """Returns how many output units a weight has in this product; 0 where it is no matrix there."""
    node, view = use.node, contraction(use.node, use.position)
    if view is None or not view.outside or not node.shape:
        return 0
    units = node.shape[_unit_axis(node, view.outside[0])]
    per_head = node.op in ("Bmm", "Baddbmm") and bool(use.chain.axes[0])
    return units * (node.shape[0] if per_head else 1)


def fans(use: Use, shape: tuple[int, ...]) -> tuple[Contraction, int, int, int]:
    """Returns a weight's axes, fan-in, fan-out and groups, from the way it meets the data.

    A transposed convolution of stride s sums prod(kernel)/prod(stride) taps into one output unit. The fan-out of a
    strided convolution is counted as if it had stride 1, as torch.nn.init does.
    """
    found = meeting(use)
    if kind_of(use.node) == "embedding":
        return found, 0, 0, 1
    fan_in = math.prod(shape[axis] for axis in found.inside)
    fan_out = math.prod(shape[axis] for axis in found.outside)
    groups = 1
    if use.node.op.startswith("Convolution"):
        groups = int(saved(use.node.fn, "groups", 1))
        kernel = math.prod(shape[2:])
        stride = math.prod(int(step) for step in saved(use.node.fn, "stride", ()))
        if saved(use.node.fn, "transposed", False):
            fan_in = max(1, fan_in // groups // max(1, stride))
            fan_out *= kernel
        else:
            fan_out = fan_out * kernel // groups
    return found, fan_in, fan_out, groups
