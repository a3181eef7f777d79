"""Where the elements of a weight lie in what is made of it, and whether a cut takes a block of them."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

from .walk import BINARY, NORMS, UNARY, VIEWS, Node, saved

T = TypeVar("T")

RESHAPES = frozenset({"View", "UnsafeView", "ReshapeAlias", "Reshape", "AsStrided", "Squeeze"})


class Stretch(NamedTuple):
    """A stretch of one axis of a value.

    Attributes:
        size: number of elements.
        axis: the axis of the parameter that it runs along; None for other data.
        stride: how far apart its elements are on that axis.
        first: it is the outermost part of that axis.
    """

    size: int
    axis: int | None
    stride: int = 1
    first: bool = True


Stretches = tuple[tuple[Stretch, ...], ...]
"""For each axis of a value, the runs that it is made of, the outermost first."""


def of_parameter(shape: tuple[int, ...]) -> Stretches:
    """Returns the layout of a parameter itself."""
    return tuple(_single(size, axis) for axis, size in enumerate(shape))


def of_data(shape: tuple[int, ...]) -> Stretches:
    """Returns the layout of a value whose axes are not those of a parameter."""
    return tuple(_single(size, None) for size in shape)


def moved(node: Node, layout: Stretches, before: tuple[int, ...]) -> Stretches:
    """Returns the layout of a node's output.

    Args:
        node: whatever it does.
        layout: of its input.
        before: shape of its input.
    """
    if node.op not in VIEWS | UNARY | BINARY | NORMS:
        return of_data(node.shape)
    layout = _regrouped(layout, node.shape) if node.op in RESHAPES else rearranged(node, layout, len(before), ())
    ndim = len(node.shape)
    layout = ((),) * (ndim - len(layout)) + layout[max(0, len(layout) - ndim) :]
    return tuple(
        runs if math.prod(run.size for run in runs) == size else _single(size, None)
        for runs, size in zip(layout, node.shape, strict=True)
    )


def rearranged(node: Node, axes: tuple[T, ...], ndim: int, empty: T) -> tuple[T, ...]:
    """Returns what belongs to each axis, after the node has put the axes in another order, or added or taken one.

    Args:
        node: any but a reshape.
        axes: what belongs to each axis of its input.
        ndim: number of axes of its input.
        empty: what belongs to a new axis of length 1.
    """
    op, fn = node.op, node.fn
    if op == "T":
        return axes[::-1]
    if op == "Transpose":
        order = list(range(ndim))
        first, second = dim_of(saved(fn, "dim0"), ndim), dim_of(saved(fn, "dim1"), ndim)
        order[first], order[second] = order[second], order[first]
        return tuple(axes[axis] for axis in order)
    if op == "Permute":
        return tuple(axes[dim_of(axis, ndim)] for axis in saved(fn, "dims"))
    if op == "Unsqueeze":
        at = dim_of(saved(fn, "dim"), ndim + 1)
        return (*axes[:at], empty, *axes[at:])
    if op in ("Select", "Unbind"):
        at = dim_of(saved(fn, "dim"), ndim)
        return (*axes[:at], *axes[at + 1 :])
    return axes


def dim_of(dim: int, ndim: int) -> int:
    """Returns a saved axis as a plain index (autograd keeps negative ones as huge unsigned numbers)."""
    dim = int(dim)
    return (dim - 2**64 if dim >= 2**63 else dim) % max(ndim, 1)


def block_axis(cut: Node, output: int, layout: Stretches) -> int | None:
    """Returns the axis of the parameter of which a cut takes a block of neighbours; None where it takes no block.

    Of `qkv.chunk(3, -1)`, each part is a block. Of `qkv.view(…, heads, 3 * width).chunk(3, -1)`, each part is made of
    some rows of every head.

    Args:
        cut: a node that keeps a part of its input.
        output: which of its outputs is meant.
        layout: of its input.
    """
    dim = dim_of(saved(cut.fn, "dim"), len(layout))
    runs = layout[dim]
    if not runs or runs[0].axis is None or not runs[0].first:
        return None
    width = 1 if cut.op in ("Select", "Unbind") else cut.shapes[output][dim]
    return runs[0].axis if width % math.prod(run.size for run in runs[1:]) == 0 else None


def _single(size: int, axis: int | None) -> tuple[Stretch, ...]:
    return (Stretch(size, axis),) if size != 1 else ()


def _regrouped(layout: Stretches, after: tuple[int, ...]) -> Stretches:
    """Returns the layout after a reshape, which reads all runs in the same order; unknown where it cuts them oddly."""
    left = [run for runs in reversed(layout) for run in reversed(runs)]
    result: list[tuple[Stretch, ...]] = []
    for length in after:
        taken: list[Stretch] = []
        while length > 1:
            run = left.pop() if left else Stretch(0, None)
            if run.size and length % run.size == 0:
                length //= run.size
            elif run.size and run.size % length == 0:
                inner = run.size // length
                left.append(Stretch(inner, run.axis, run.stride, first=False))
                run = Stretch(length, run.axis, run.stride * inner, run.first)
                length = 1
            else:
                return of_data(after)
            taken.append(run)
        result.append(_joined(taken))
    return tuple(result)


def _joined(runs: list[Stretch]) -> tuple[Stretch, ...]:
    """Returns the runs with those as one that lie side by side on the parameter again."""
    result: list[Stretch] = []
    for run in runs:
        last = result[-1] if result else None
        if last is not None and last.axis == run.axis is not None and last.stride == run.stride * run.size:
            result[-1] = Stretch(last.size * run.size, run.axis, run.stride, last.first)
        else:
            result.append(run)
    return tuple(result)
