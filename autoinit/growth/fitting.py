"""Whether a source and a model are of one architecture, and which way leads from one to the other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ..errors import SourceError, did_you_mean
from ..graph import Graph
from ..text import numberless
from .mapping import Axis, factors
from .methods import METHODS
from .pairing import Pair
from .stacks import Shape

_MOST = 5
"""Layers that an error names."""


def check_method(method: str) -> None:
    """Raises SourceError for what is no method."""
    if method not in METHODS:
        raise SourceError(f"There is no method {method!r}. {did_you_mean(method, METHODS)}")


def new_parts(
    graph: Graph, pairs: Sequence[Pair], mine: Mapping[str, Shape], theirs: Mapping[str, Shape]
) -> dict[str, str]:
    """Returns what stays as the model has it, with the reason: heads of another size, and what comes after all else.

    Args:
        graph: of the model.
        pairs: every tensor and its counterpart.
        mine: the model's shapes by name.
        theirs: the source's shapes by name.
    """
    source = {pair.name: pair.source for pair in pairs}
    new = {pair.name for pair in pairs if pair.block}
    met = [layer for layer in graph.layers if layer.is_matrix and source.get(layer.name) is not None]
    inner = {
        (theirs[source[layer.name] or ""][axis], mine[layer.name][axis])
        for layer in met
        if layer.role != "output" and len(theirs[source[layer.name] or ""]) == len(layer.shape)
        for axis in layer.out_axes[:1]
    }
    deepest = max((layer.depth for layer in met), default=math.inf)
    found: dict[str, str] = {}
    for layer in graph.layers:
        other = source.get(layer.name)
        if layer.of in found:
            found[layer.name] = found[layer.of or ""]
        elif other is None and layer.name not in new:
            free = layer.role == "output" or (layer.depth >= deepest and "*" not in numberless(layer.name))
            if free:
                found[layer.name] = "the source has none"
        elif (
            other is not None and layer.role == "output" and layer.is_matrix and len(theirs[other]) == len(layer.shape)
        ):
            widths = theirs[other][layer.out_axes[0]], mine[layer.name][layer.out_axes[0]]
            if widths[0] != widths[1] and widths not in inner:
                found[layer.name] = f"it has {widths[1]} outputs, the source's {widths[0]}"
    return found


def misfits(
    graph: Graph, pairs: Iterable[Pair], mine: Mapping[str, Shape], theirs: Mapping[str, Shape]
) -> dict[str, str]:
    """Returns the tensors that no method can fill from their counterpart, with what is wrong, in words."""
    found: dict[str, str] = {}
    for pair in pairs:
        if pair.source is None:
            if pair.name in graph and not pair.block:
                found[pair.name] = f"{_shape(mine[pair.name])} here, nothing in its place in the source"
            continue
        one, other = mine[pair.name], theirs[pair.source]
        kernel = graph[pair.name].kernel_axes if pair.name in graph else ()
        if len(one) != len(other) or any(one[axis] != other[axis] for axis in kernel) or 0 in other:
            found[pair.name] = f"{_shape(one)} here, {_shape(other)} in the source"
    return found


def check_architecture(wrong: Mapping[str, str], total: int) -> None:
    """Raises SourceError where some tensors fit by no method.

    Args:
        wrong: from `misfits`.
        total: how many tensors there are.
    """
    if wrong:
        raise SourceError(
            f"The source is of another architecture: {_listed(wrong)} ({len(wrong)} of {total} tensors do not fit). No "
            "method fills these: growing and selecting need the same layers, which may differ in width and in the "
            "number of equal blocks. Give the model the source's layers, or pass a source with the model's."
        )


def check_direction(
    method: str, axes: Mapping[str, Sequence[Axis]], pairs: Sequence[Pair], theirs: Iterable[str]
) -> None:
    """Raises SourceError where a method that grows meets a larger source, or one that selects a smaller one.

    Args:
        method: its name.
        axes: of every tensor that is filled.
        pairs: every tensor and its counterpart.
        theirs: the source's names.
    """
    used = {pair.source for pair in pairs if pair.source is not None}
    kinds = {numberless(name) for name in used}
    left = [name for name in theirs if name not in used and numberless(name) in kinds]
    grown = _sized(axes, 1) | {pair.name: "in a block that the source lacks" for pair in pairs if pair.block}
    shrunk = _sized(axes, -1) | dict.fromkeys(left, "in a block that the model lacks")
    wrong = grown if METHODS[method].narrower else shrunk
    if not wrong:
        return
    if grown and shrunk:
        nearest = (
            "None fits: the model is larger in one place and smaller in another. Make it at least as large as the "
            "source everywhere (then 'clone'), or at most (then 'select_uniform')."
        )
    else:
        other = "clone" if METHODS[method].narrower else "select_uniform"
        nearest = f"The nearest method that fits is {other!r}."
    way = "selects a part of a larger source" if METHODS[method].narrower else "grows a smaller source"
    raise SourceError(f"{method!r} {way}, which this one is not: {_listed(wrong)}. {nearest}")


def _sized(axes: Mapping[str, Sequence[Axis]], sign: int) -> dict[str, str]:
    """Returns the tensors with a factor that is larger than in the source (`sign` 1), or smaller (-1)."""
    return {
        name: f"{_shape([axis.after for axis in some])} here, {_shape([axis.before for axis in some])} in the source"
        for name, some in axes.items()
        if any((one.after - one.before) * sign > 0 for one in factors(some))
    }


def _listed(wrong: Mapping[str, str]) -> str:
    rest = f" and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
    return "; ".join(f"{name!r} ({what})" for name, what in list(wrong.items())[:_MOST]) + rest


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "1"
