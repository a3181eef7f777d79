"""The elementwise function after a weight: replayed on a grid as the tape recorded it, and named."""

from __future__ import annotations

import heapq
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..activations import FORMULAS, GRID, LINEAR, Activation, Array
from .blocks import SOFTMAX, Blocks, is_mixture, is_product
from .tape import Call, Ref, Unknown
from .walk import PARTS, VIEWS, Edge, Node, saved

_NEAR_ZERO = 1e-5
_POINTS = torch.from_numpy(np.append(GRID, _NEAR_ZERO))
_PRELU = 0.25
_RRELU = (1 / 8 + 1 / 3) / 2
"""Slopes that are learned or drawn count as torch's initial or mean one."""
_NEUTRAL = {"add": 0.0, "sub": 0.0, "rsub": 0.0, "mul": 1.0, "div": 1.0, "true_divide": 1.0, "multiply": 1.0}


class CannotReplayError(Exception):
    """A call depends on more than the one value."""


class Replay:
    """Evaluates nodes as functions of their origin, in float64 on the CPU.

    Args:
        calls: what the tape recorded.
        nodes: autograd node → node.
        blocks: the structure.

    Attributes:
        unread: operations that end a nonlinear function which could not be replayed.
    """

    def __init__(self, calls: Mapping[Any, Call], nodes: Mapping[Any, Node], blocks: Blocks) -> None:
        self._calls, self._nodes, self._blocks = calls, nodes, blocks
        self._known: dict[bytes, Activation] = {}
        self.unread: list[str] = []

    def name(self, node: Node) -> Activation:
        """Returns the elementwise function up to a node; linear where it cannot be replayed, with a note."""
        try:
            values = self(node)
        except (CannotReplayError, RuntimeError, TypeError, ValueError, AttributeError):
            if node in self._blocks.nonlinear:
                self.unread.append(node.op)
            return LINEAR
        key = values.tobytes()
        if key not in self._known:
            self._known[key] = name_of(values[:-1], float(values[-1]))
        return self._known[key]

    def __call__(self, node: Node) -> Array:
        """Returns the node's values where its origin takes those of the grid (and one point near zero)."""
        with torch.no_grad():
            result = self._value(node, self._blocks.origin[node], {})
        if not isinstance(result, Tensor) or result.shape != _POINTS.shape:
            raise CannotReplayError(node.op)
        return np.asarray(result.double().numpy(), dtype=np.float64)

    def _value(self, node: Node, origin: Edge, known: dict[Node, Any]) -> Any:
        if node not in known:
            known[node] = self._evaluate(node, origin, known)
        return known[node]

    def _edge(self, edge: Edge, origin: Edge, known: dict[Node, Any]) -> Any:
        if edge == origin or (edge.node is origin.node and edge.node.op not in PARTS):
            return _POINTS
        if edge.node.static or self._blocks.source(edge) != origin:
            return Unknown()
        return self._value(edge.node, origin, known)

    def _evaluate(self, node: Node, origin: Edge, known: dict[Node, Any]) -> Any:
        if node is origin.node:
            return _POINTS
        if node.op in VIEWS or node.op in ("NativeDropout", "FusedDropout"):
            return self._edge(node.data[0], origin, known)
        if node.custom:
            return _apply_custom(node, self._edge(node.data[0], origin, known))
        if node.op == "PreluKernel":
            return torch.nn.functional.leaky_relu(self._edge(node.data[0], origin, known), _PRELU)
        call = node.call or self._calls.get(node.fn)
        if call is not None:
            try:
                return self._apply(call, origin, known, node.data[0] if node.call else None)
            except CannotReplayError:  # the call did more than this node, as F.bilinear adds its bias
                pass
        return _apply_by_name(node, [self._edge(edge, origin, known) for edge in node.data])

    def _apply(self, call: Call, origin: Edge, known: dict[Node, Any], written: Edge | None = None) -> Any:
        """Returns a call's result; `written` is the value that it wrote into, where autograd hides that."""
        args = [self._argument(value, origin, known) for value in call.args]
        if written is not None:
            args[0] = self._edge(written, origin, known)
        kwargs = {key: self._argument(value, origin, known) for key, value in call.kwargs.items()}
        name = str(call.func.__name__).strip("_")
        if "dropout" in name:  # the expectation of dropout is the identity, and no random number is drawn
            return args[0]
        if name == "rrelu":
            return torch.nn.functional.leaky_relu(args[0], _RRELU)
        plain = name if name in _NEUTRAL else name[1:]  # __iadd__, __radd__
        tensors = [value for value in args if not isinstance(value, Unknown)]
        if len(tensors) < len(args) and plain in _NEUTRAL:
            neutral = torch.tensor(_NEUTRAL[plain], dtype=torch.float64)
            args = [neutral if isinstance(value, Unknown) else value for value in args]
        if any(isinstance(value, Unknown) for value in [*args, *kwargs.values()]):
            raise CannotReplayError(name)
        for name_only in ("inplace", "device", "pin_memory"):
            kwargs.pop(name_only, None)
        fresh = [value.clone() if isinstance(value, Tensor) else value for value in args]  # it may write into them
        return call.func(*fresh, **kwargs)

    def _argument(self, value: Any, origin: Edge, known: dict[Node, Any]) -> Any:
        if isinstance(value, Ref):
            node = self._nodes.get(value.fn)
            if node is None or node.static:
                return Unknown()
            return self._edge(Edge(node, 0), origin, known)
        if isinstance(value, Call):
            return self._apply(value, origin, known)
        if isinstance(value, torch.dtype):
            return torch.float64
        return value


def _apply_custom(node: Node, x: Any) -> Any:
    """Returns what a user's autograd Function makes of x; its other arguments are read off its context."""
    function = type(node.fn)._forward_cls
    names = list(inspect.signature(function.forward).parameters.values())[2:]
    kept = vars(node.fn) if node.fn.__dict__ else {}
    try:
        extra = [kept.get(p.name, p.default) for p in names if p.kind is p.POSITIONAL_OR_KEYWORD]
        extra = [1.0 if value is inspect.Parameter.empty else value for value in extra]
        return function.forward(torch.autograd.function.FunctionCtx(), x.clone(), *extra)
    except Exception as error:  # it is the user's code, called in an unusual way
        raise CannotReplayError(node.op) from error


_BY_NAME: dict[str, Callable[..., Tensor]] = {
    "Relu": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Silu": torch.nn.functional.silu,
    "Mish": torch.nn.functional.mish,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Exp": torch.exp,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Erf": torch.erf,
    "Hardswish": torch.nn.functional.hardswish,
    "Hardsigmoid": torch.nn.functional.hardsigmoid,
    "LogSigmoid": torch.nn.functional.logsigmoid,
    "Mul": lambda x, y=1.0: x * y,
    "Add": lambda x, y=0.0: x + y,
    "Sub": lambda x, y=0.0: x - y,
}


def _apply_by_name(node: Node, args: list[Any]) -> Any:
    """Returns a node's function where the tape saw no call: below Python, or in scripted code."""
    x, fn = args[0], node.fn
    if any(isinstance(value, Unknown) for value in args):
        raise CannotReplayError(node.op)
    if node.op == "Elu":
        alpha, scale = saved(fn, "alpha", 1.0), saved(fn, "scale", 1.0)
        return torch.where(x > 0, scale * x, scale * alpha * torch.expm1(x * saved(fn, "input_scale", 1.0)))
    if node.op == "LeakyRelu":
        return torch.nn.functional.leaky_relu(x, saved(fn, "negative_slope", 0.01))
    if node.op == "Gelu":
        return torch.nn.functional.gelu(x, approximate=saved(fn, "approximate", "none"))
    if node.op == "Hardtanh":
        return torch.clamp(x, float(saved(fn, "min_val", -1.0)), float(saved(fn, "max_val", 1.0)))
    if node.op == "Pow":
        return torch.pow(x, float(saved(fn, "exponent", 2.0)))
    if node.op == "Mul" and len(args) == 1:
        other = saved(fn, "other")
        return x * float(other) if isinstance(other, Tensor) and other.numel() == 1 and not other.is_meta else x
    if node.op in _BY_NAME:
        return _BY_NAME[node.op](*args)
    raise CannotReplayError(node.op)


class Response(NamedTuple):
    """What follows a product.

    Attributes:
        activation: the function between its output and the next weight.
        mixed: rows are added up before that function, so that it does not see the product's own outputs.
    """

    activation: Activation
    mixed: bool = False


_MIXING = frozenset(
    "Mm Bmm Baddbmm Sum ScatterAdd ScatterReduce IndexAdd IndexReduce SegmentReduce SparseAddmm".split()
)


def response(blocks: Blocks, replay: Replay, product: Node) -> Response:
    """Returns the first function that is not affine on the way of a product's values to the next weight.

    That is the weight which is used next; a later one may take the same values otherwise, as the projection of a skip
    takes them without the normalization and the function of the branch beside it. Ways that end in the shares of a
    softmax are no ways of the values, unless there are no others.
    """
    if product not in blocks.followed:
        return Response(LINEAR)
    mixed: set[Edge] = set()
    queue: list[tuple[int, int, Edge]] = []
    seen: set[Edge] = set()
    ends: dict[Edge, Response] = {}
    order = 0

    def reach(value: Edge, end: Response | None = None) -> None:
        nonlocal order
        if end is not None:
            ends.setdefault(value, end)
        heapq.heappush(queue, (value.node.index, order, value))
        order += 1

    for output in range(max(1, len(product.shapes))):
        reach(Edge(product, output))
    while queue:
        _, _, value = heapq.heappop(queue)
        if value in ends:
            return ends[value]
        if value in seen:
            continue
        seen.add(value)
        for node in _region_ends(blocks, value):
            if _is_aside(blocks, node, product) or not any(_leads_on(blocks, one) for one, _ in node.consumers):
                continue
            named = replay.name(node) if node is not value.node else LINEAR
            if named != LINEAR:
                reach(Edge(node, 0), Response(named, value in mixed))
                continue
            for consumer, _ in node.consumers:
                aside = consumer in blocks.gate_side or _is_aside(blocks, consumer, product)
                if consumer.static or aside or not _leads_on(blocks, consumer) or _inherits(blocks, consumer, value):
                    continue
                mixture = is_mixture(blocks, consumer, node)
                if (is_product(blocks, consumer) and not mixture) or consumer.op in SOFTMAX:
                    reach(Edge(consumer, 0), Response(LINEAR))
                    continue
                if consumer.op == "Glu":
                    reach(Edge(consumer, 0), Response(Activation("sigmoid"), value in mixed))
                    continue
                outputs = len(consumer.shapes) if consumer.op in PARTS else 1
                for output in range(outputs):
                    if mixture or value in mixed or consumer.op in _MIXING:
                        mixed.add(Edge(consumer, output))
                    reach(Edge(consumer, output))
    return Response(LINEAR)


def _is_aside(blocks: Blocks, node: Node, product: Node) -> bool:
    """Whether a node only serves to scale or to weigh values, and the product is more than that."""
    scores = node in blocks.scoring and product not in blocks.scoring
    return scores or node in blocks.statistics


def _leads_on(blocks: Blocks, node: Node) -> bool:
    """Whether the way to a later weight leads through a node; other ways lead to the loss only."""
    return node in blocks.products or node in blocks.followed


def _inherits(blocks: Blocks, node: Node, value: Edge) -> bool:
    """Whether a node is an elementwise function of this value."""
    return blocks.origin[node] == value and node is not value.node


def _region_ends(blocks: Blocks, value: Edge) -> list[Node]:
    """Returns the nodes that are elementwise functions of a value and are used by something that is not."""
    ends: list[Node] = []
    stack, seen = [value.node], {value.node}
    while stack:
        node = stack.pop()
        outside = False
        for consumer, position in node.consumers:
            edge = consumer.inputs[position]
            if node is value.node and edge is not None and edge.output != value.output and node.op in PARTS:
                continue
            if consumer.static or not _inherits(blocks, consumer, value):
                outside = True
            elif consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
        if (outside or not node.consumers) and node not in blocks.statistics:
            ends.append(node)
    return sorted(ends, key=lambda node: node.index)


def name_of(values: Array, near_zero: float) -> Activation:
    """Returns the activation with these values on `GRID`; affine functions are linear.

    Args:
        values: φ(GRID).
        near_zero: φ(1e-5), from which a frequency is read.
    """
    if not np.all(np.isfinite(values)):
        return LINEAR
    line = values[0] + (values[-1] - values[0]) * (GRID - GRID[0]) / (GRID[-1] - GRID[0])
    if np.allclose(values, line, atol=1e-6, rtol=1e-6):
        return LINEAR
    if set(np.unique(values)) <= {0.0, 1.0}:
        return Activation("spike", table=tuple(float(value) for value in values))
    for name, parameters in _candidates(values, near_zero):
        if np.allclose(FORMULAS[name](GRID, *parameters), values, atol=1e-4, rtol=1e-5):
            return Activation(name, parameters)
    return Activation("custom", table=tuple(round(float(value), 6) for value in values))


def _candidates(values: Array, near_zero: float) -> list[tuple[str, tuple[float, ...]]]:
    """Returns every formula with the parameters that these values would give it."""
    parametric = {"leaky_relu", "elu", "celu", "softplus", "hardtanh", "sin"}
    plain = [(name, ()) for name in FORMULAS if name not in parametric and name != "linear"]
    middle, low, high = float(values[len(values) // 2]), float(values.min()), float(values.max())
    left = float(values[0])
    found: list[tuple[str, tuple[float, ...]]] = [*plain]
    found.append(("leaky_relu", (_tidy(left / GRID[0]),)))
    found.append(("elu", (_tidy(left / math.expm1(-8.0)),)))
    if left < 0:
        alpha = -left
        for _ in range(60):
            alpha = -left / -math.expm1(-8.0 / alpha)
        found.append(("celu", (_tidy(alpha),)))
    if middle > 0:
        found.append(("softplus", (_tidy(math.log(2.0) / middle),)))
    found.append(("hardtanh", (_tidy(low), _tidy(high))))
    if abs(near_zero) < 1:
        found.append(("sin", (_tidy(math.asin(near_zero) / _NEAR_ZERO),)))
    return [(name, () if parameters == _DEFAULTS.get(name) else parameters) for name, parameters in found]


_DEFAULTS: dict[str, tuple[float, ...]] = {
    "elu": (1.0,),
    "celu": (1.0,),
    "softplus": (1.0,),
    "hardtanh": (-1.0, 1.0),
    "sin": (1.0,),
    "leaky_relu": (0.01,),
}


def _tidy(value: float) -> float:
    """Returns the value without the noise of single precision."""
    return float(f"{value:.5g}")
