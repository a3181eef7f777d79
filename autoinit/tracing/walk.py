"""The recorded autograd graph as plain nodes, from the loss back to every parameter."""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..errors import ModelError
from .tape import Call, RecurrentCall

VIEWS = frozenset(
    "T Transpose Permute View UnsafeView ReshapeAlias Reshape Expand Unsqueeze Squeeze ToCopy Clone Alias AsStrided"
    " Slice Select Split UnsafeSplit SplitWithSizes Unbind Repeat Roll Flip CopyBackwards Unfold Diagonal".split()
)
"""Nodes that move elements without changing them."""

PARTS = frozenset("Slice Select Split UnsafeSplit SplitWithSizes Unbind".split())
"""Views that keep only a part of what they look at."""

NORMS = frozenset(
    "NativeLayerNorm NativeBatchNorm CudnnBatchNorm MiopenBatchNorm BatchNormWithUpdate NativeGroupNorm FusedRmsNorm"
    " RmsNorm".split()
)
PRODUCTS = frozenset(
    "Addmm Mm Bmm Baddbmm Mv Addmv Dot Linear Convolution ConvolutionOverrideable Embedding EmbeddingBag Trilinear"
    " GroupedMm".split()
)
UNARY = frozenset(
    "Relu LeakyRelu Elu Celu Gelu Silu Mish Softplus LogSigmoid Tanh Sigmoid Hardtanh Hardsigmoid Hardswish Threshold"
    " Sin Cos Exp Exp2 Expm1 Log Log1P Abs Neg Pow Sqrt Rsqrt Reciprocal Erf Sgn Sign Clamp ClampMin ClampMax Sinh Cosh"
    " Atan Softshrink Hardshrink PreluKernel RreluWithNoise Sinc Round Floor NativeDropout FusedDropout".split()
)
BINARY = frozenset("Add Sub Rsub Mul Div Pow Maximum Minimum Where Addcmul Addcdiv Lerp MaskedFill".split())
REDUCTIONS = frozenset("Mean Sum Var Std VarMean StdMean LinalgVectorNorm Norm Amax Prod".split())
POOLS = frozenset(
    "AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D MaxPool1D MaxPool2D"
    " MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D"
    " UpsampleBilinear2D ConstantPadNd ReflectionPad2D PixelShuffle PixelUnshuffle MkldnnAdaptiveAvgPool2D Mean".split()
)
WEIGHT_OPS = VIEWS | NORMS | UNARY | BINARY | REDUCTIONS | {"Cat", "Stack", "WeightNormInterface", "Index", "Mm", "Eye"}
"""What may be done to a weight, before it meets the data."""


class ReentrantError(ModelError):
    """A part of the model is out of autograd's sight, whatever it is run on."""


class Edge(NamedTuple):
    """One output of a node."""

    node: Node
    output: int


@dataclass(eq=False, slots=True)
class Node:
    """One recorded operation, in the order of the forward pass.

    Attributes:
        op: the node's name without "Backward0".
        fn: autograd's own node (or the recorded call of a recurrent module).
        index: position in the forward order: every input has a smaller one.
        shapes: of its outputs.
        inputs: by argument; None where the argument needs no gradient.
        leaf: the parameter's name, where it is one.
        static: it depends on parameters only, on no data.
        consumers: the nodes that use it, with the argument's position.
        call: what wrote into a view in place, where autograd recorded only that something did.
    """

    op: str
    fn: Any
    index: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    inputs: tuple[Edge | None, ...] = ()
    leaf: str = ""
    static: bool = False
    consumers: list[tuple[Node, int]] = field(default_factory=list)
    call: Call | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.shapes[0] if self.shapes else ()

    @property
    def data(self) -> list[Edge]:
        """The inputs that depend on data."""
        return [edge for edge in self.inputs if edge is not None and not edge.node.static]

    @property
    def custom(self) -> bool:
        """Whether it is a user's `torch.autograd.Function`."""
        return isinstance(self.fn, torch.autograd.function.BackwardCFunction)


def saved(fn: Any, name: str, default: Any = None) -> Any:
    """Returns what autograd saved as `_saved_<name>` for its backward pass, or the default."""
    try:
        return getattr(fn, f"_saved_{name}", default)
    except RuntimeError:  # freed by a backward pass, or undefined
        return default


def walk(
    roots: Iterable[Any],
    names: Mapping[int, str],
    cuts: Mapping[Any, str],
    calls: Mapping[Any, RecurrentCall],
    gradients: Mapping[Any, tuple[Any, ...]],
    noisy: Container[Any] = (),
) -> list[Node]:
    """Returns all nodes behind the roots, in forward order.

    A gradient that the step took itself counts as a constant: what it was computed with are no operations of the
    model. Of what it is the gradient all is seen.

    Args:
        roots: `grad_fn` of each loss.
        names: id of each parameter → its name.
        cuts: nodes that count as a leaf: where a parametrized tensor is derived → its name.
        calls: nodes that belong to a recurrent call.
        gradients: nodes of gradients that the step took → nodes of what it differentiated.
        noisy: nodes of calls that took what was drawn at random in the step.
    """
    nodes: dict[Hashable, Node] = {}
    links: dict[Hashable, list[tuple[Hashable, int] | None]] = {}
    differentiated: set[Hashable] = set()
    stack: list[Hashable] = [calls.get(root, root) for root in roots]
    while stack:
        key = stack.pop()
        if key in gradients:
            differentiated.add(key)
            stack.extend(calls.get(fn, fn) for fn in gradients[key] if fn not in differentiated)
            continue
        if key in nodes:
            continue
        nodes[key] = node = _node(key, names, cuts)
        links[key] = [] if node.leaf else list(_links(key, calls))
        stack.extend(link[0] for link in links[key] if link is not None)
    for key, node in nodes.items():
        node.inputs = tuple(
            None if link is None or link[0] in gradients else Edge(nodes[link[0]], link[1]) for link in links[key]
        )
    return _ordered(list(nodes.values()), noisy)


def release(nodes: Iterable[Node]) -> None:
    """Lets go of autograd's own nodes, and so of the activations that they saved.

    Nodes refer to each other both ways, so that they would otherwise stay, with a whole step's activations on the
    device, until the garbage collector happens to run.
    """
    for node in nodes:
        node.fn = node.call = None
        node.inputs = ()
        node.consumers.clear()


def _links(key: Any, calls: Mapping[Any, RecurrentCall]) -> Iterator[tuple[Hashable, int] | None]:
    if isinstance(key, RecurrentCall):
        yield from ((calls.get(fn, fn), 0) for fn in key.inputs)
        return
    for fn, output in key.next_functions:
        yield None if fn is None else (calls[fn], 0) if fn in calls else (fn, output)


def _node(key: Any, names: Mapping[int, str], cuts: Mapping[Any, str]) -> Node:
    if isinstance(key, RecurrentCall):
        return Node("Recurrent", key, shapes=(key.shape,))
    op = re.sub(r"Backward\d*$", "", key.name().rpartition("::")[2])
    if op == "CheckpointFunction":
        raise ReentrantError(
            "The model uses reentrant checkpointing, which hides its inside from autograd. Pass use_reentrant=False to "
            "torch.utils.checkpoint.checkpoint; to transformers' gradient_checkpointing_enable, "
            "gradient_checkpointing_kwargs={'use_reentrant': False}."
        )
    shapes = tuple(tuple(int(length) for length in meta.shape) for meta in key._input_metadata)
    leaf = cuts.get(key, "")
    if op == "AccumulateGrad":
        leaf = names.get(id(key.variable), "")
        shapes = (tuple(key.variable.shape),)
    return Node(op, key, shapes=shapes, leaf=leaf)


def _ordered(nodes: list[Node], noisy: Container[Any]) -> list[Node]:
    """Returns the nodes sorted as the forward pass made them, with index, consumers and static set."""
    nodes.sort(key=_time)
    for index, node in enumerate(nodes):
        node.index = index
    if any(edge and edge.node.index >= node.index for node in nodes for edge in node.inputs):
        nodes = _topological(nodes)
    nodes = _without_constants(nodes)
    for index, node in enumerate(nodes):
        node.index = index
        node.static = _is_static(node, noisy)
        for position, edge in enumerate(node.inputs):
            if edge is not None:
                edge.node.consumers.append((node, position))
    return nodes


def _without_constants(nodes: list[Node]) -> list[Node]:
    """Returns the nodes less those that depend on gradients alone, in forward order: they count as constants too."""
    constants: set[Node] = set()
    for node in nodes:
        node.inputs = tuple(None if edge is None or edge.node in constants else edge for edge in node.inputs)
        if node.inputs and not any(node.inputs):  # by itself autograd records nothing that needs no gradient
            constants.add(node)
    return [node for node in nodes if node not in constants]


def _time(node: Node) -> int:
    if not node.inputs:
        return -1
    if node.op == "Recurrent":
        return min(int(fn._sequence_nr()) for fn in node.fn.outputs)
    return int(node.fn._sequence_nr())


def _topological(nodes: list[Node]) -> list[Node]:
    """Returns the nodes with inputs first (graphs made on several threads have no common clock)."""
    done: set[Node] = set()
    order: list[Node] = []
    stack = [(node, False) for node in reversed(nodes)]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((edge.node, False) for edge in node.inputs if edge is not None)
    return order


def _is_static(node: Node, noisy: Container[Any]) -> bool:
    if node.leaf:
        return True
    edges = [edge for edge in node.inputs if edge is not None]
    if node.op not in WEIGHT_OPS or not edges or not all(edge.node.static for edge in edges):
        return False
    if len(edges) == len(node.inputs) or node.op in NORMS:
        return True
    # The other argument needs no gradient. A constant leaves the weight's shape as it is, data does not.
    return node.op in BINARY | UNARY | {"Index"} and (
        node.op == "Index" or node.fn in noisy or node.shape == edges[0].node.shapes[edges[0].output]
    )


_IN_PLACE = {
    "relu": "Relu", "leaky_relu": "LeakyRelu", "elu": "Elu", "selu": "Elu", "celu": "Celu", "silu": "Silu",
    "mish": "Mish", "tanh": "Tanh", "sigmoid": "Sigmoid", "hardtanh": "Hardtanh", "relu6": "Hardtanh",
    "hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "threshold": "Threshold", "sin": "Sin", "clamp": "Clamp",
    "add": "Add", "iadd": "Add", "sub": "Sub", "isub": "Sub", "mul": "Mul", "imul": "Mul", "div": "Div",
    "itruediv": "Div", "dropout": "NativeDropout",
}  # fmt: skip


def unveil(nodes: list[Node], calls: Mapping[Any, Call]) -> None:
    """Names the operations that wrote into a view in place, which autograd records as "CopySlices" and a new view.

    A linear layer's output of three axes is a view, so this is `nn.ReLU(inplace=True)` after it, or `out += x`.
    """
    writes = {node.fn: node for node in nodes if node.op == "CopySlices"}
    for fn, call in calls.items() if writes else ():
        written = fn.next_functions[0][0] if fn.next_functions else None  # what the new view looks at
        name = str(call.func.__name__).strip("_")
        if written in writes and name in _IN_PLACE:
            writes[written].op, writes[written].call = _IN_PLACE[name], call


def search_back(start: Node, floor: int) -> set[Node]:
    """Returns the data nodes that `start` depends on (itself included), no older than index `floor`."""
    found = {start}
    stack = [start]
    while stack:
        for edge in stack.pop().data:
            if edge.node.index >= floor and edge.node not in found:
                found.add(edge.node)
                stack.append(edge.node)
    return found
