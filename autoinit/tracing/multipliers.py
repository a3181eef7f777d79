"""What becomes of a weight's scale on its way into its product: constants, added or multiplied, noise, functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

from .tape import Call, Noise
from .walk import REDUCTIONS, Node, saved

NoiseKind = Literal["", "scattered", "centred"]
"""What multiplies a parameter at random: nothing, a mask or the like, noise of mean zero."""

_BENDING = frozenset(
    "Exp Exp2 Expm1 Softplus Sigmoid LogSigmoid Hardsigmoid Log Log1P Abs Pow Sqrt Reciprocal Relu Cos Cosh".split()
)
"""Functions after which a weight of mean zero and small spread is neither."""
_SUMS = frozenset({"Add", "Sub", "Addcmul"})


def constant(node: Node, position: int) -> float:
    """Returns the size of the constant that a parameter is multiplied with in a node; 1 where there is none.

    Of a tensor, such as a mask, it is the root mean square: what that does to the variance of a sum. Zeros and what has
    no value (on the meta device) count as 1.

    Args:
        node: depends on parameters only.
        position: argument of the node that the parameter stands at.
    """
    if node.op not in ("Mul", "Div") or len([edge for edge in node.inputs if edge is not None]) != 1:
        return 1.0
    value = saved(node.fn, "other" if position == 0 else "self")
    if not isinstance(value, Tensor) or value.is_meta or (node.op == "Div" and position != 0):
        return 1.0
    values = value.detach().double()
    size = abs(values.item()) if values.numel() == 1 else values.square().mean().sqrt().item()
    if not math.isfinite(size) or size == 0:
        return 1.0
    return float(f"{size:.7g}") ** (1 if node.op == "Mul" else -1)  # without the noise of single precision


def addend(node: Node, call: Call | None) -> float:
    """Returns the number that a node adds to a parameter, as in a scale 1 + w; 0 where there is none.

    Args:
        node: depends on parameters only.
        call: what made the node; None where it is unknown.
    """
    if node.op not in ("Add", "Sub") or call is None:
        return 0.0
    numbers = [value for value in call.args if isinstance(value, (int, float))]
    if len(numbers) != 1 or len(call.args) != 2 or call.kwargs:
        return 0.0
    return float(numbers[0] if node.op == "Add" else -numbers[0])


def noise(node: Node, position: int, call: Call | None, before: NoiseKind) -> NoiseKind:
    """Returns what multiplies a parameter at random after a node.

    A mask multiplies a weight, as in DropConnect; but what is random and then added to another parameter is noise
    about that one, whatever its distribution.

    Args:
        node: the parameter, or what was made of it, is an argument.
        position: of that argument.
        call: what made the node; None where it is unknown.
        before: what has multiplied it before.
    """
    parameters = sum(edge is not None and edge.node.static for edge in node.inputs)
    multiplies = node.op == "Mul" or (node.op == "Addcmul" and position > 0)
    if multiplies and call is not None and before != "centred":
        met = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, Noise)]
        before = "centred" if any(value.centred for value in met) else "scattered" if met else before
    return "centred" if before == "scattered" and node.op in _SUMS and parameters > 1 else before


def is_masked(call: Call | None) -> bool:
    """Whether a call multiplies with what is drawn at random, so that its size is no constant."""
    if call is None:
        return False
    values: Iterable[Any] = (*call.args, *call.kwargs.values())
    return "dropout" in str(call.func.__name__) or any(isinstance(value, Noise) for value in values)


def bent(ops: frozenset[str]) -> str:
    """Returns the function that a parameter passes before it acts, in words; empty where it acts as it is.

    Statistics of a weight, which may divide it, are no such function.
    """
    functions = sorted(ops & _BENDING)
    if not functions or ops & REDUCTIONS:
        return ""
    return f"its values pass a function ({', '.join(functions).lower()}) before they act, which sets their scale"
